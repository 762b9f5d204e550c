"""Build and search a knowledge base of N chunks of synthetic text through the real store and indexes.

    python benchmarks/index_scale.py 100000 [1000000] [--peers] [--home FOLDER] [--json]

Rows go into SQLite, postings and vectors into index generations, batch by batch as an ingestion
publishes them, with the merges in the background; then a fresh process opens what is there and asks
through `rag.retrieve.Retriever`: our embedder for the question, both indexes, fusion, join with SQL.
Passages get drawn vectors (embedding is measured by benchmarks/embedder.py). Build and latency are CPU
times, which a busy machine changes little; throughput is wall time, so stop what else runs.

``--home`` keeps what is built in FOLDER/COUNT; where something lies there already, it is only searched (so that the
minutes of the build need not be quiet ones).

``--peers`` asks the same of other libraries, over the same texts and vectors (benchmarks/peers.py).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from synthetic import Language, vectors

from rag.filters import Filters
from rag.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

DIM = 256
BATCH = 2048
"""Chunks that are published at once."""
PER_DOCUMENT = 16
"""Chunks of a document; every 100th document carries the tag «rare», every other «often»."""
CLIENTS = (1, 4, 16)
SECONDS = 4.0
"""How long each number of clients asks."""
QUERIES = 200
K = 10
Figures = dict[str, Any]
Q = TypeVar("Q")


def build(home: Path, count: int) -> Figures:
    """Fill a knowledge base, as an ingestion does after parsing and embedding."""
    from rag.index.generations import IndexManager
    from rag.store.kbs import get_or_create_kb
    from rag.store.session import Database

    settings = Settings(home=home)
    database = Database(settings)
    database.migrate()
    indexes = IndexManager(database, settings)
    with database.session() as session:
        kb_id = get_or_create_kb(session, "default").id
    language = Language()
    began, cpu, drawing, longest = time.perf_counter(), time.process_time(), 0.0, 0.0
    for start in range(0, count, BATCH):
        drawn = time.thread_time()
        texts = language.texts(min(BATCH, count - start))
        rows = vectors(len(texts), DIM, seed=start)
        drawing += time.thread_time() - drawn
        at = time.perf_counter()
        with database.session(write=True) as session:
            ids = _store(session, kb_id, start, texts)
            indexes.publish("default", (ids, texts, rows), session=session)
        longest = max(longest, time.perf_counter() - at)
        if start % (50 * BATCH) == 0:
            print(f"  {start:,} chunks, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    indexes.settle("default")
    index = indexes.open("default")
    assert index.folder is not None
    return {
        "build_s": time.perf_counter() - began - drawing,
        "build_cpu_s": time.process_time() - cpu - drawing,
        "longest_publish_s": longest,
        "build_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "lexical_mb": size_mb(index.folder / "lexical"),
        "vectors_mb": size_mb(index.folder / "vectors"),
        "lexical_segments": [len(s) for s in index.lexical.segments],
        "vector_segments": [f"{len(s)} {s.kind}" for s in index.vectors.segments],
    }


def _store(session: Session, kb_id: int, start: int, texts: list[str]) -> list[int]:
    """Rows of documents, versions and chunks, in bulk; the chunks' ids, which count from 1."""
    from sqlalchemy import insert

    from rag.store.models import Chunk, Document, DocumentTag, DocumentVersion

    documents, versions, chunks, tags = [], [], [], []
    for at in range(0, len(texts), PER_DOCUMENT):
        number = (start + at) // PER_DOCUMENT + 1
        part = texts[at : at + PER_DOCUMENT]
        document_id = f"{number:036d}"
        documents.append({"id": document_id, "kb_id": kb_id, "path": f"{number}.txt", "title": f"第{number}篇"})
        tags += [{"document_id": document_id, "tag": "rare"}] if number % 100 == 0 else []
        tags += [{"document_id": document_id, "tag": "often"}] if number % 2 == 0 else []
        text = "\n".join(part)
        version = {"id": number, "document_id": document_id, "sha256": f"{number:064d}", "text": text}
        versions.append(version | {"media_type": "text/plain", "size_bytes": len(text)})
        offset = 0
        for ordinal, piece in enumerate(part):
            end = offset + len(piece)
            spot = {"version_id": number, "ordinal": ordinal, "char_start": offset, "char_end": end}
            chunks.append({"id": start + at + ordinal + 1, **spot})
            offset = end + 1
    for model, rows in ((Document, documents), (DocumentVersion, versions), (DocumentTag, tags), (Chunk, chunks)):
        if rows:
            session.execute(insert(model), rows)
    return [chunk["id"] for chunk in chunks]


def search(home: Path) -> Figures:
    """Latency, recall, filters and throughput in a fresh process."""
    from rag.embedders import load_embedder
    from rag.index.generations import IndexManager
    from rag.index.kinds import faiss
    from rag.retrieve import Retriever
    from rag.store.session import Database

    settings = Settings(home=home)
    database = Database(settings)
    database.migrate()  # what was kept may be of an earlier version
    indexes = IndexManager(database, settings)
    embedder = load_embedder(settings.embedder)
    embedder.encode_queries(["预热"])
    faiss().omp_set_num_threads(1)
    before = _resident_mb()
    began = time.process_time()
    index = indexes.open("default")
    opened = 1000 * (time.process_time() - began)
    retriever = Retriever(database, indexes, embedder, None, settings)
    questions = _questions(index.lexical.ids().tolist(), database)
    points = vectors(QUERIES, DIM, seed=99)
    for question in questions[:20]:
        retriever.search(question, k=K, rerank=False)
    report: Figures = {"open_ms": opened}
    report["search"] = percentiles([_timed(lambda q=q: retriever.search(q, k=K, rerank=False)) for q in questions])
    report["lexical"] = percentiles([_timed(lambda q=q: index.lexical.search(q, 30)) for q in questions])
    report["dense"] = percentiles([_timed(lambda p=p: index.vectors.search(p[None], 30)) for p in points])
    for tag in ("rare", "often"):
        only = Filters(tags=(tag,))
        report[tag] = percentiles(
            [_timed(lambda q=q, f=only: retriever.search(q, k=K, filters=f)) for q in questions[:50]]
        )
    found = index.vectors.search(points, 10)[0].tolist()
    right = index.vectors.search(points, 10, exact=True)[0].tolist()
    report["recall_at_10"] = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, right, strict=True)]))
    report["resident_mb"] = _resident_mb() - before
    report["per_s"] = {
        str(n): throughput(n, questions, lambda q: retriever.search(q, k=K, rerank=False)) for n in CLIENTS
    }
    return report


def throughput(clients: int, questions: list[Q], ask: Callable[[Q], object]) -> float:
    """Answers a second when so many clients, a thread each, ask one question after the other."""
    ends = time.perf_counter() + SECONDS
    counts = [0] * clients

    def work(client: int) -> None:
        while time.perf_counter() < ends:
            ask(questions[(client + clients * counts[client]) % len(questions)])
            counts[client] += 1

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def percentiles(times: list[float]) -> Figures:
    """In milliseconds."""
    return {"p50_ms": float(np.percentile(times, 50)), "p95_ms": float(np.percentile(times, 95))}


def size_mb(folder: Path) -> float:
    """Size of the files."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return 1000 * (time.process_time() - began)


def _questions(ids: list[int], database: Any) -> list[str]:
    """18 characters from the middle of chunks all over the knowledge base."""
    from sqlalchemy import select

    from rag.store.models import Chunk, DocumentVersion

    with database.session() as session:
        picked = ids[:: max(1, len(ids) // QUERIES)][:QUERIES]
        rows = session.execute(
            select(Chunk.char_start, DocumentVersion.text)
            .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
            .where(Chunk.id.in_(picked))
        )
        return [text[start + 40 + n % 100 :][:18] for n, (start, text) in enumerate(rows)]


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _phase(name: str, *arguments: str) -> Figures:
    """A phase in a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--phase", name, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    found: Figures = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[100_000])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--phase", choices=["build", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, metavar="FOLDER", help="keep the indexes here, and search what is there")
    arguments = parser.parse_args()
    if arguments.phase == "build":
        print(json.dumps(build(arguments.home, arguments.counts[0])))
        return
    if arguments.phase == "search":
        print(json.dumps(search(arguments.home)))
        return
    report: Figures = {}
    for count in arguments.counts:
        with tempfile.TemporaryDirectory(prefix="chatgglm-scale-") as scratch:
            home = (arguments.home or Path(scratch)) / str(count)
            built = home / "build.json"
            if not built.exists():
                home.mkdir(parents=True, exist_ok=True)
                built.write_text(json.dumps(_phase("build", str(count), "--home", str(home))), encoding="utf-8")
            report[str(count)] = json.loads(built.read_text("utf-8")) | _phase("search", "--home", str(home))
    if arguments.peers:
        import peers

        report["peers"] = peers.compare(arguments.counts[0])
    print(json.dumps(report) if arguments.json else json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
