"""Lexical engines side by side over the same terms: ours, SQLite FTS5, tantivy (where it is installed).

    python benchmarks/lexical.py [--chunks 100000] [--queries 200] [--json]

All three index the terms of `rag.index.terms`; so what differs is the engine. Times are CPU times of
the process, which a busy machine does not change; each engine runs in a process of its own. tantivy is
no dependency of ours: `pip install tantivy` for this benchmark alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from synthetic import Language

from rag.index.lexical import Bm25Index
from rag.index.terms import term_keys

BATCH = 256
"""Chunks that an ingestion publishes at once."""
K = 30
Figures = dict[str, Any]


class Engine(Protocol):
    """What each must do; ``close`` and ``open`` are another process's view."""

    def add(self, ids: Sequence[int], texts: Sequence[str]) -> None: ...

    def delete(self, ids: Sequence[int], texts: Sequence[str]) -> None: ...

    def finish(self) -> None:
        """What is done once after a large addition."""

    def reopen(self) -> None: ...

    def search(self, query: str, k: int, allowed: Sequence[int] | None = None) -> list[int]: ...


class Ours:
    """`rag.index.lexical`, published batch by batch as generations are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.index = Bm25Index()

    def _publish(self) -> None:
        self.number += 1
        self.index.save(self.folder / str(self.number))
        shutil.rmtree(self.folder / str(self.number - 1), ignore_errors=True)

    def add(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        self.index.add(ids, texts)
        self._publish()

    def delete(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        self.index.delete(ids)
        self._publish()

    def finish(self) -> None:
        while names := self.index.due():
            self.index.replace(names, self.index.merged(names))
        self._publish()

    def reopen(self) -> None:
        self.index = Bm25Index.open(self.folder / str(self.number))

    def search(self, query: str, k: int, allowed: Sequence[int] | None = None) -> list[int]:
        chosen = None if allowed is None else np.asarray(allowed, dtype=np.int64)
        return [i for i in self.index.search(query, k, allowed=chosen)[0].tolist() if i >= 0]


class Fts5:
    """SQLite FTS5, contentless; a deletion has to present the old terms again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "fts.db"
        self.db = sqlite3.connect(self.path)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("CREATE VIRTUAL TABLE t USING fts5(terms, content='', tokenize='ascii')")

    def add(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        with self.db:
            self.db.executemany("INSERT INTO t(rowid, terms) VALUES (?, ?)", zip(ids, map(joined, texts), strict=True))

    def delete(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        with self.db:
            rows = zip(ids, map(joined, texts), strict=True)
            self.db.executemany("INSERT INTO t(t, rowid, terms) VALUES ('delete', ?, ?)", rows)

    def finish(self) -> None:
        with self.db:
            self.db.execute("INSERT INTO t(t) VALUES ('optimize')")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def reopen(self) -> None:
        self.db.close()
        self.db = sqlite3.connect(self.path)

    def search(self, query: str, k: int, allowed: Sequence[int] | None = None) -> list[int]:
        match = " OR ".join(f'"{term}"' for term in joined(query).split())
        within = ""
        if allowed is not None:
            self.db.execute("CREATE TEMP TABLE IF NOT EXISTS chosen (id INTEGER PRIMARY KEY)")
            self.db.execute("DELETE FROM chosen")
            self.db.executemany("INSERT INTO chosen VALUES (?)", ((int(i),) for i in allowed))
            within = "AND rowid IN (SELECT id FROM chosen)"
        rows = self.db.execute(f"SELECT rowid FROM t WHERE t MATCH ? {within} ORDER BY rank LIMIT ?", (match, k))
        return [row[0] for row in rows]


class Tantivy:
    """tantivy; ids as raw text, since its deletion by a number silently deletes nothing."""

    def __init__(self, folder: Path) -> None:
        import tantivy

        self.api = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
        builder.add_text_field("terms", stored=False, tokenizer_name="whitespace", index_option="freq")
        self.schema = builder.build()
        self.folder = folder
        self.index = tantivy.Index(self.schema, path=str(folder))
        self.writer = self.index.writer(heap_size=128_000_000, num_threads=1)

    def add(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        for i, text in zip(ids, texts, strict=True):
            self.writer.add_document(self.api.Document(id=str(i), terms=joined(text)))
        self.writer.commit()
        self.index.reload()

    def delete(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        for i in ids:
            self.writer.delete_documents_by_term("id", str(i))
        self.writer.commit()
        self.index.reload()

    def finish(self) -> None:
        self.writer.wait_merging_threads()
        self.index.reload()

    def reopen(self) -> None:
        self.index = self.api.Index(self.schema, path=str(self.folder))
        self.writer = self.index.writer(heap_size=128_000_000, num_threads=1)

    def search(self, query: str, k: int, allowed: Sequence[int] | None = None) -> list[int]:
        api = self.api
        terms = [
            (api.Occur.Should, api.Query.term_query(self.schema, "terms", term, "freq"))
            for term in joined(query).split()
        ]
        wanted = api.Query.boolean_query(terms)
        if allowed is not None:
            chosen = api.Query.term_set_query(self.schema, "id", [str(i) for i in allowed])
            chosen = api.Query.boost_query(chosen, 0.0)
            wanted = api.Query.boolean_query([(api.Occur.Must, wanted), (api.Occur.Must, chosen)])
        searcher = self.index.searcher()
        return [int(searcher.doc(address)["id"][0]) for _, address in searcher.search(wanted, k).hits]


ENGINES: dict[str, Callable[[Path], Engine]] = {"ours": Ours, "fts5": Fts5, "tantivy": Tantivy}


def joined(text: str) -> str:
    """The terms of a text as words of digits, for engines that want text."""
    return " ".join(map(str, term_keys(text).tolist()))


def measure(name: str, texts: list[str], queries: list[str], allowed: list[int]) -> Figures:
    """One engine, from nothing to a reopened index; the texts' numbers are their ids."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            engine = ENGINES[name](folder)
        except ImportError:
            return {"not_measured": f"{name} is not installed"}
        began = time.process_time()
        for at in range(0, len(texts), 4 * BATCH):
            engine.add(range(at, min(at + 4 * BATCH, len(texts))), texts[at : at + 4 * BATCH])
        engine.finish()
        figures: Figures = {"build_s": time.process_time() - began}
        figures["mb"] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
        answers = [engine.search(query, K) for query in queries]
        engine.reopen()
        engine.search(queries[0], K)
        times: list[float] = []
        filtered: list[float] = []
        again = []
        within = []
        for query in queries:
            began = time.process_time()
            again.append(engine.search(query, K))
            times.append(time.process_time() - began)
        for query in queries[: len(queries) // 4]:
            began = time.process_time()
            within.append(engine.search(query, K, allowed))
            filtered.append(time.process_time() - began)
        figures["same_after_reopening"] = again == answers
        figures["filter_kept"] = all(set(found) <= set(allowed) for found in within)
        figures |= {"p50_ms": _ms(times, 50), "p95_ms": _ms(times, 95)}
        figures |= {"filtered_p50_ms": _ms(filtered, 50), "filtered_p95_ms": _ms(filtered, 95)}
        gone = [i for found in answers[:20] for i in found[:5]]
        gone = sorted(set(gone))
        began = time.process_time()
        engine.delete(gone, [texts[i] for i in gone])
        figures["delete_ms"] = 1000 * (time.process_time() - began)
        figures["deleted_are_gone"] = not {i for query in queries[:20] for i in engine.search(query, K)} & set(gone)
        began = time.process_time()
        engine.add(range(len(texts), len(texts) + BATCH), texts[:BATCH])
        figures["add_256_ms"] = 1000 * (time.process_time() - began)
        figures["answers"] = answers
    figures["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return figures


def _ms(times: list[float], percentile: int) -> float:
    return float(np.percentile(times, percentile) * 1000)


def compare(count: int, queries: int) -> Figures:
    """All engines, and how far their ten best agree with ours."""
    language = Language()
    texts = [text for _, some in language.batches(count, 10_000) for text in some]
    rng = np.random.default_rng(3)
    asked = [
        texts[i][j : j + 18]
        for i, j in zip(rng.integers(0, count, queries), rng.integers(0, 200, queries), strict=True)
    ]
    allowed = sorted(set(rng.integers(0, count, count // 100).tolist()))
    report: Figures = {"chunks": count, "queries": queries}
    context = multiprocessing.get_context("fork")
    for name in ENGINES:
        with context.Pool(1) as pool:
            report[name] = pool.apply(measure, (name, texts, asked, allowed))
    ours = report["ours"].pop("answers")
    for name in ENGINES:
        if theirs := report[name].pop("answers", None):
            shared = [len(set(a[:10]) & set(b[:10])) / 10 for a, b in zip(ours, theirs, strict=True)]
            report[name]["agreement_at_10"] = float(np.mean(shared))
    return report


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = compare(arguments.chunks, arguments.queries)
    if arguments.json:
        print(json.dumps(report))
        return
    for name in ENGINES:
        print(name, json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in report[name].items()}))


if __name__ == "__main__":
    main()
