"""Measures ChatGGLM and writes docs/benchmarks.md (figures kept in docs/benchmarks.json).

    python benchmarks/run_all.py [--shared ../shared] [--only reading retrieval …] [--skip install …] [--peers PYTHON]
    python benchmarks/run_all.py --report scale=FILE.json …

Every section runs the commands that a user would run, on a state of its own. A section that fails, or whose data
are not there, is written as «not measured»; a section that is left out keeps its earlier figures and their date.
``--report`` takes what a section's own script wrote, for parts that were measured apart while the machine was quiet.
Stop whatever else uses the processors first. The data lie beside the checkout of developers only
(``--shared`` or CHATGGLM_SHARED); the other sections need nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from page import WAYS, headlines, page

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "benchmarks.json"
MARKS = ("<!-- benchmarks -->", "<!-- /benchmarks -->")
QUESTION = "默认端口是多少？"
Figures = dict[str, Any]


class NotMeasured(Exception):
    """Why a section has no figures."""


class Bench:
    """What the sections share: the command, the data, a scratch folder."""

    def __init__(self, shared: Path, scratch: Path, peers: str = "") -> None:
        self.shared = shared
        self.scratch = scratch
        self.peers = peers
        self.command = str(Path(sys.executable).with_name("chatgglm"))

    def environment(self, home: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CHATGGLM_")}
        return kept | {"CHATGGLM_HOME": str(self.scratch / home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def run(self, *arguments: str, home: str = "home", codes: tuple[int, ...] = (0,)) -> tuple[str, float]:
        """stdout and seconds of a `chatgglm` command (or of a Python script of this repository)."""
        program = [sys.executable] if arguments[0].endswith(".py") else [self.command]
        start = time.perf_counter()
        done = subprocess.run(
            [*program, *arguments], capture_output=True, text=True, env=self.environment(home), cwd=ROOT
        )
        seconds = time.perf_counter() - start
        if done.returncode not in codes:
            raise NotMeasured(f"`{' '.join(arguments[:2])}` failed: {done.stderr.strip().splitlines()[-1:]}")
        return done.stdout, seconds

    def json(self, *arguments: str, **options: Any) -> Figures:
        out: Figures = json.loads(self.run(*arguments, "--json", **options)[0])
        return out

    def data(self, name: str) -> Path:
        path = self.shared / "data" / name
        if not path.exists():
            raise NotMeasured("needs the data beside the checkout (--shared)")
        return path


def machine(bench: Bench) -> Figures:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        cpu = found[1].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    import torch

    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def install(bench: Bench) -> Figures:
    """A fresh virtual environment from the constraints, downloads cached or not as pip finds them."""
    venv = bench.scratch / "venv"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    index = os.environ.get("TORCH_INDEX")
    extra = ["--extra-index-url", index] if index else []
    done = subprocess.run([*pip, "-c", "constraints.txt", *extra, "-e", "."], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise NotMeasured(f"pip failed: {done.stderr.strip().splitlines()[-1:]}")
    seconds = time.perf_counter() - start
    torch = venv.glob("lib/python*/site-packages/torch")
    figures = {"seconds": seconds, "venv_mb": _size_mb(venv), "torch_mb": _size_mb(*torch)}
    shutil.rmtree(venv)
    return figures


def start(bench: Bench) -> Figures:
    helps = [bench.run("--help")[1] for _ in range(7)]
    bench.run("ingest", "ingest/guide/zh", home="start")
    asks = [bench.run("ask", QUESTION, home="start")[1] for _ in range(3)]
    with _server(bench, "start") as (base, began, process):
        first = _post(f"{base}/v1/ask", {"question": QUESTION})
        answered = time.perf_counter() - began
        warm = []
        for _ in range(10):
            at = time.perf_counter()
            _post(f"{base}/v1/ask", {"question": QUESTION})
            warm.append(1000 * (time.perf_counter() - at))
        memory = _resident_mb(process.pid)
    return {
        "help_s": statistics.median(helps),
        "ask_s": statistics.median(asks),
        "server_first_answer_s": answered,
        "warm_ask_ms": statistics.median(warm),
        "server_rss_mb": memory,
        "answer": first["answer"],
    }


def ingestion(bench: Bench) -> Figures:
    folder = bench.scratch / "texts"
    folder.mkdir()
    size = 0
    for number, text in enumerate(_texts(bench)):
        data = text.encode()
        (folder / f"{number:04d}.md").write_bytes(data)
        size += len(data)
        if size > 3_000_000:
            break
    report = bench.json("ingest", str(folder), home="ingestion", codes=(0, 1))
    totals = report["totals"]
    chunks = sum(d["chunks"] for d in report["documents"] if d["status"] == "indexed")
    seconds = totals["seconds"]
    return {
        "documents": len(report["documents"]),
        "mb": size / 1e6,
        "chunks": chunks,
        "seconds": seconds,
        "mb_per_s": size / 1e6 / seconds,
        "chunks_per_s": chunks / seconds,
        "rates": bench.json(
            "benchmarks/ingest_rate.py", "--megabytes", "3", *(["--peers", bench.peers] if bench.peers else [])
        ),
    }


def formats(bench: Bench) -> Figures:
    samples = bench.shared / "samples"
    if not samples.is_dir():
        raise NotMeasured("needs the sample documents beside the checkout (--shared)")
    peers = ["--peers", bench.peers] if bench.peers else ["--install-peers"]
    return bench.json("benchmarks/formats.py", str(samples), *peers)


def durability(bench: Bench) -> Figures:
    return bench.json("benchmarks/faults.py", "--kills", "120", codes=(0, 1))


def scale_out(bench: Bench) -> Figures:
    return bench.json("benchmarks/scale_out.py", "--cores", "0", "1")


def decode(bench: Bench) -> Figures:
    return bench.json("bench")


READING = ("cmrc2018_dev", "authored_dev", "authored_docs_dev", "expmrc_cmrc2018_dev")
"""DRCD dev is not among them: the shipped reader was trained on it."""


def reading(bench: Bench) -> Figures:
    files = {name: bench.data(f"qa/{name}.jsonl.zst") for name in READING}
    report = bench.json("eval", "reading", *map(str, files.values()))
    return {"model": report["model"]} | {name: report["files"][str(path)] for name, path in files.items()}


def refusal(bench: Bench) -> Figures:
    files = {name: bench.data(f"qa/{name}.jsonl.zst") for name in ("authored_dev", "cmrc2018_trial")}
    report = bench.json("eval", "refusal", *map(str, files.values()))
    return {"model": report["model"]} | {name: report["files"][str(path)] for name, path in files.items()}


def writing(bench: Bench) -> Figures:
    files = {
        "papers": bench.data("summary/summ_chinaxiv_abstract.heldout.jsonl.zst"),
        "pages": bench.data("summary/summ_docs_description_ms.heldout.jsonl.zst"),
    }
    report = bench.json("eval", "summary", *map(str, files.values()), "--limit", "150")
    chat = str(ROOT / "data/smalltalk/dev.jsonl")
    return {
        "summary": {name: report["files"][str(path)] for name, path in files.items()},
        "chat": bench.json("eval", "chat", chat)["files"][chat],
    }


def translation(bench: Bench) -> Figures:
    files = {
        "everyday": bench.data("translation/translation_tatoeba.heldout.jsonl.zst"),
        "office": bench.data("translation/translation_office_help.heldout.jsonl.zst"),
        "technical": bench.data("translation/translation_tech_docs.heldout.jsonl.zst"),
        "captions": bench.data("translation/translation_captions_3am.heldout.jsonl.zst"),
        "news": bench.data("translation/eval_translation_wmt21-zh-en.dev.jsonl.zst"),
    }
    words = str(bench.data("translation/dictionary_cedict.jsonl.zst"))
    report = bench.json("eval", "translation", *map(str, files.values()), "--glossary", words, "--limit", "100")
    return {"model": report["model"]} | {name: report["files"][str(path)] for name, path in files.items()}


def retrieval(bench: Bench) -> Figures:
    return bench.json("eval", "retrieval", str(bench.data("qa/cmrc2018_dev.jsonl.zst")))


def ranking(bench: Bench) -> Figures:
    bench.data("qa")
    out = bench.scratch / "ranking.json"
    shared = ("--shared", str(bench.shared))
    bench.run("benchmarks/ranking.py", *shared, "--questions", "0", "--no-reader", "--out", str(out))
    report: Figures = json.loads(out.read_text(encoding="utf-8"))
    return {way: report[way] for way in WAYS}  # docs/decisions/008 has the others


def conversation(bench: Bench) -> Figures:
    bench.data("rewrite")
    return bench.json("benchmarks/followups.py", "--shared", str(bench.shared))


def end_to_end(bench: Bench) -> Figures:
    return _asked(bench, bench.data("e2e_dev"))


def small_talk(bench: Bench) -> Figures:
    return bench.json("benchmarks/smalltalk.py", "--json")


def end_to_end_written(bench: Bench) -> Figures:
    return _own_documents(bench, "dev")


def end_to_end_hard(bench: Bench) -> Figures:
    return _own_documents(bench, "dev-hard")


def end_to_end_tables(bench: Bench) -> Figures:
    return _own_documents(bench, "dev-tables")


def _own_documents(bench: Bench, name: str) -> Figures:
    """One of the repository's own development sets, each document a Markdown file under its name."""
    folder = bench.scratch / name
    bench.run("train", "questions", str(ROOT / "data/questions" / name), "-o", str(folder))
    return _asked(bench, folder)


def _asked(bench: Bench, data: Path) -> Figures:
    out = bench.scratch / "e2e.json"
    bench.run("benchmarks/e2e.py", str(data), "--out", str(out))
    report: Figures = json.loads(out.read_text(encoding="utf-8"))
    report.pop("questions")  # the page needs no single verdicts, and they quote the data
    report.pop("documents")
    return report


def lexical_engines(bench: Bench) -> Figures:
    return _report(bench, "benchmarks/lexical.py", "--json")


def vector_kinds(bench: Bench) -> Figures:
    """24,000 pieces of text embedded by our embedder; 100,000 vectors lie between those of two pieces each."""
    pieces = [text[at : at + 300] for text in _texts(bench) for at in range(0, min(len(text), 6000), 300)][:24_200]
    files = []
    for name, kind, some in (
        ("passages", "passage", pieces[200:]),
        ("queries", "query", [p[20:45] for p in pieces[:200]]),
    ):
        source, target = bench.scratch / f"{name}.jsonl", bench.scratch / f"{name}.npy"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in some), encoding="utf-8")
        bench.run("embed", str(source), "-o", str(target), "--kind", kind)
        files.append(str(target))
    arguments = ["--embeddings", files[0], "--queries", files[1], "--json"]
    return _report(bench, "benchmarks/vectors.py", str(len(pieces[200:])), "100000", *arguments)


def scale(bench: Bench) -> Figures:
    return _report(bench, "benchmarks/index_scale.py", "100000", "--peers", "--json")


def scale_million(bench: Bench) -> Figures:
    return _report(bench, "benchmarks/index_scale.py", "1000000", "--json")


def _report(bench: Bench, *arguments: str) -> Figures:
    out: Figures = json.loads(bench.run(*arguments)[0])
    return out


SECTIONS: dict[str, Callable[[Bench], Figures]] = {
    "machine": machine,
    "install": install,
    "start": start,
    "ingestion": ingestion,
    "formats": formats,
    "durability": durability,
    "scale_out": scale_out,
    "lexical_engines": lexical_engines,
    "vector_kinds": vector_kinds,
    "scale": scale,
    "scale_million": scale_million,
    "decode": decode,
    "reading": reading,
    "refusal": refusal,
    "writing": writing,
    "translation": translation,
    "retrieval": retrieval,
    "ranking": ranking,
    "conversation": conversation,
    "small_talk": small_talk,
    "end_to_end": end_to_end,
    "end_to_end_written": end_to_end_written,
    "end_to_end_hard": end_to_end_hard,
    "end_to_end_tables": end_to_end_tables,
}


# -- helpers -------------------------------------------------------------------------------------


def _texts(bench: Bench) -> Iterator[str]:
    """Real texts where the data are there; else the user guide over and over, each copy different."""
    heldout = bench.shared / "data" / "text_heldout" / "heldout.jsonl.zst"
    if heldout.exists():
        import io

        import zstandard

        with heldout.open("rb") as raw:
            stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                yield json.loads(line)["text"]
        return
    guide = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "ingest/guide/zh").glob("*.md"))]
    for copy in range(80):
        yield from (f"{text}\n\n第 {copy} 份\n" for text in guide)


@contextmanager
def _server(bench: Bench, home: str) -> Iterator[tuple[str, float, subprocess.Popen[str]]]:
    """A running server: its address, when it was started, its process."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [bench.command, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=bench.environment(home),
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://[^\s]+", process.stdout.readline())
        if not found:
            raise NotMeasured("the server did not start")
        yield found[0], began, process
    finally:
        process.terminate()
        process.wait(20)


def _post(url: str, body: Figures) -> Figures:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        out: Figures = json.load(response)
    return out


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def _size_mb(*folders: Path) -> float:
    return sum(f.lstat().st_size for folder in folders for f in folder.rglob("*")) / 1e6


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _write_into(path: Path, table: str) -> None:
    """Puts the short table between the marks of a README."""
    text = path.read_text(encoding="utf-8")
    if MARKS[0] in text:
        head, _, rest = text.partition(MARKS[0])
        tail = rest.partition(MARKS[1])[2] if MARKS[1] in rest else rest
        path.write_text(f"{head}{MARKS[0]}\n{table}\n{MARKS[1]}{tail}", encoding="utf-8")


def kept() -> dict[str, Figures]:
    """The figures measured so far."""
    figures: dict[str, Figures] = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    return figures


def keep(name: str, found: Figures) -> None:
    """Write a section's figures at once: other sections may be measured meanwhile, or this run be cut short."""
    found |= {"measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "commit": _commit()}
    text = json.dumps(kept() | {name: found}, ensure_ascii=False, indent=1)
    FIGURES.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("CHATGGLM_SHARED", str(ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=Path(shared), help="folder that holds data/")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--skip", nargs="+", choices=SECTIONS, default=[])
    parser.add_argument(
        "--report", nargs="+", metavar="SECTION=FILE", default=[], help="take these reports, run nothing"
    )
    parser.add_argument("--peers", default="", metavar="PYTHON", help="an interpreter that has what we compare with")
    arguments = parser.parse_args()
    for part in arguments.report:
        name, _, file = part.partition("=")
        if name not in SECTIONS:
            parser.error(f"{name} is no section")
        keep(name, json.loads(Path(file).read_text(encoding="utf-8")))
    if arguments.report:
        arguments.only = []
    with tempfile.TemporaryDirectory(prefix="chatgglm-bench-") as scratch:
        bench = Bench(arguments.shared.resolve(), Path(scratch), arguments.peers)
        for name in arguments.only:
            if name in arguments.skip:
                continue
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                found = SECTIONS[name](bench)
            except NotMeasured as reason:
                found = {"not_measured": str(reason)}
            except Exception as error:  # one broken part must not cost the others
                found = {"not_measured": f"{type(error).__name__}: {error}"}
            print(f"  {json.dumps(found, ensure_ascii=False)[:200]}", file=sys.stderr, flush=True)
            keep(name, found)
    figures = kept()
    PAGE.write_text(page(figures), encoding="utf-8")
    if table := headlines(figures):
        for readme in ("README.md", "README.zh.md"):
            _write_into(ROOT / readme, table)
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
