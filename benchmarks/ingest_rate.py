"""How fast documents come in: parsing and cutting alone, and the whole way into the index.

    OMP_NUM_THREADS=1 python benchmarks/ingest_rate.py [FOLDER] [--megabytes 4] [--workers 2] [--peers PYTHON] [--json]

Without FOLDER, documents are made from the sentences of the bundled guide, in five formats. State
lives in a temporary directory. MB are those of UTF-8 text that came out, not of the files. Beside
wall time stands the time of all processors together, which other programs disturb less.

``--peers`` runs LangChain's loaders, splitter and FAISS over the same files with the same embedder, by the interpreter
of an environment of its own (they are no dependencies of ours): python -m venv PEERS; PEERS/bin/pip install
langchain-community langchain-text-splitters faiss-cpu pypdf docx2txt beautifulsoup4 torch tokenizers safetensors
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def sentences() -> list[str]:
    """The guide's own sentences."""
    from ingest.formats import parse
    from ingest.guide import bundled
    from ingest.sentences import sentences as split

    found: list[str] = []
    for path in sorted(bundled().glob("*.md")):
        text = parse(path).text
        found += [text[start:end] for start, end in split(text, 0, len(text)) if 10 <= end - start <= 120]
    return [" ".join(sentence.split()) for sentence in found]


def documents(folder: Path, megabytes: float) -> None:
    """Fills ``folder`` with documents of about 30 kB of text each, the same share of each format."""
    chance = random.Random(1)
    pool = sentences()
    makers: dict[str, Callable[[list[str]], bytes]] = {
        "txt": lambda paragraphs: "\n".join(paragraphs).encode("gb18030"),
        "md": lambda paragraphs: "\n\n".join(paragraphs).encode(),
        "html": _html,
        "docx": _docx,
        "pdf": _pdf,
    }
    try:
        import reportlab  # noqa: F401
    except ImportError:
        del makers["pdf"]
    size, number = 0, 0
    while size < megabytes * 1e6:
        for suffix, make in makers.items():
            paragraphs = ["".join(chance.sample(pool, 6)) for _ in range(60)]
            (folder / f"{number:04}.{suffix}").write_bytes(make(paragraphs))
            size += len("\n".join(paragraphs).encode())
            number += 1


def _html(paragraphs: list[str]) -> bytes:
    import html

    body = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
    return f"<html><head><meta charset=utf-8></head><body><div id=content>{body}</div></body></html>".encode()


def _docx(paragraphs: list[str]) -> bytes:
    import docx

    document = docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def _pdf(paragraphs: list[str]) -> bytes:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    buffer = io.BytesIO()
    canvas = Canvas(buffer)
    lines = [paragraph[i : i + 37] for paragraph in paragraphs for i in range(0, len(paragraph), 37)]
    for page in range(0, len(lines), 40):
        canvas.setFont("STSong-Light", 12)
        for i, line in enumerate(lines[page : page + 40]):
            canvas.drawString(72, 780 - 18 * i, line)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def parsing(folder: Path) -> dict[str, Any]:
    """MB of text a second on one core, by format, in this process."""
    from ingest.chunk import chunk
    from ingest.errors import SourceError
    from ingest.formats import parse, supported

    seconds: dict[str, float] = defaultdict(float)
    size: dict[str, int] = defaultdict(int)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and supported(path.name)):
        began = time.process_time()
        try:
            parsed = parse(path)
        except SourceError:
            continue
        chunk(parsed)
        seconds[path.suffix] += time.process_time() - began
        size[path.suffix] += len(parsed.text.encode())
    rates = {suffix: round(size[suffix] / 1e6 / seconds[suffix], 2) for suffix in sorted(size)}
    return {"mb_per_cpu_s": rates | {"all": round(sum(size.values()) / 1e6 / sum(seconds.values()), 2)}}


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(work: Callable[[], tuple[int, int, int, int]]) -> dict[str, Any]:
    """Rates of ``work``, which returns documents, failures, chunks and characters."""
    began, before = time.perf_counter(), processor_seconds()
    documents, failed, chunks, characters = work()
    seconds, busy = time.perf_counter() - began, processor_seconds() - before
    return {
        "documents": documents,
        "failed": failed,
        "chunks": chunks,
        "seconds": round(seconds, 2),
        "processor_seconds": round(busy, 2),
        "mb_per_s": round(characters * 3 / 1e6 / seconds, 2),
        "mb_per_processor_s": round(characters * 3 / 1e6 / busy, 2),
        "chunks_per_s": round(chunks / seconds, 1),
        "chunks_per_processor_s": round(chunks / busy, 1),
    }


def whole(folder: Path, workers: int, with_embedder: bool) -> dict[str, Any]:
    """Parsing in processes, or the whole ingestion, models loaded beforehand."""
    from ingest.pipeline import ingest
    from ingest.plan import dry_run
    from rag.service import Service
    from rag.settings import Settings

    def totals(report: Any) -> tuple[int, int, int, int]:
        found = report.totals
        return found["documents"], found["failed"], found["chunks"], found["characters"]

    if not with_embedder:
        return timed(lambda: totals(dry_run([folder], workers=workers)))
    with tempfile.TemporaryDirectory() as home:
        service = Service(Settings(home=Path(home)))
        service.database.migrate()
        service.embedder.encode_passages(["预热"])
        return timed(lambda: totals(ingest(service, [folder], workers=workers)))


def peer(python: str, folder: Path, threads: int) -> dict[str, Any]:
    """LangChain over the same files, by an interpreter that has it; one thread or ``threads``, what is faster."""
    from ingest.chunk import TARGET

    program = [python, __file__, str(folder), "--child", str(TARGET)]
    runs: list[dict[str, Any]] = []
    for count in {1, threads}:
        environment = os.environ | {"OMP_NUM_THREADS": str(count), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(program, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"the peer failed: {done.stderr.strip().splitlines()[-1:]}")
        runs.append(json.loads(done.stdout) | {"threads": count})
    return min(runs, key=lambda run: run["seconds"])


def langchain(folder: Path, target: int) -> dict[str, Any]:
    """Its loaders and recursive splitter, its FAISS store, and our embedder, loaded beforehand as ours is."""
    from langchain_community.document_loaders import BSHTMLLoader, Docx2txtLoader, PyPDFLoader, TextLoader
    from langchain_community.vectorstores import FAISS
    from langchain_core.embeddings import Embeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    from rag.embedders import load_embedder

    embedder = load_embedder()
    embedder.encode_passages(["预热"])

    class Ours(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return embedder.encode_passages(texts).tolist()

        def embed_query(self, text: str) -> list[float]:
            return embedder.encode_queries([text])[0].tolist()

    loaders: dict[str, Callable[[str], Any]] = {
        ".txt": lambda path: TextLoader(path, encoding="gb18030"),  # told, where we find out
        ".md": lambda path: TextLoader(path, encoding="utf-8"),
        ".html": lambda path: BSHTMLLoader(path, open_encoding="utf-8"),
        ".docx": Docx2txtLoader,
        ".pdf": PyPDFLoader,
    }
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=target, chunk_overlap=0, separators=["\n\n", "\n", "。", "！", "？", "；", "，", " ", ""]
    )

    def work() -> tuple[int, int, int, int]:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in loaders)
        documents = [document for path in paths for document in loaders[path.suffix](str(path)).load()]
        characters = sum(len(document.page_content) for document in documents)
        parts = splitter.split_documents(documents)
        with tempfile.TemporaryDirectory() as home:
            FAISS.from_documents(parts, Ours()).save_local(home)
        return len(paths), 0, len(parts), characters

    return timed(work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--megabytes", type=float, default=4.0, help="of text to make without FOLDER")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-embedding", action="store_true", help="only what needs no model")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has LangChain")
    parser.add_argument("--json", action="store_true", help="on one line")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(langchain(arguments.folder, arguments.child)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder
        if folder is None:
            folder = Path(scratch)
            documents(folder, arguments.megabytes)
        figures = {"parsing": parsing(folder), "processes": whole(folder, arguments.workers, False)}
        if not arguments.no_embedding:
            figures["ingestion"] = whole(folder, arguments.workers, True)
        if arguments.peers:
            figures["langchain"] = peer(arguments.peers, folder, arguments.workers)
    print(json.dumps(figures, ensure_ascii=False, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
