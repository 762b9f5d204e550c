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


READING = ("cmrc2018_dev", "authored_dev", "authored_docs_dev")
"""DRCD dev is not among them: the shipped reader was trained on it."""


def reading(bench: Bench) -> Figures:
    files = {name: bench.data(f"qa/{name}.jsonl.zst") for name in READING}
    report = bench.json("eval", "reading", *map(str, files.values()))
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
    "retrieval": retrieval,
    "ranking": ranking,
    "conversation": conversation,
    "small_talk": small_talk,
    "end_to_end": end_to_end,
    "end_to_end_written": end_to_end_written,
    "end_to_end_hard": end_to_end_hard,
    "end_to_end_tables": end_to_end_tables,
}


# -- the page ------------------------------------------------------------------------------------


def page(all_figures: dict[str, Figures]) -> str:
    """The Markdown page."""
    out = [
        "# Benchmarks",
        "",
        "Written by `benchmarks/run_all.py` (`make bench`); do not edit. Each section runs the command named under it.",
        "",
    ]
    for name, (title, how, rows) in TABLES.items():
        figures = all_figures.get(name)
        out += [f"## {title}", ""]
        if figures is None or "not_measured" in figures:
            out += [f"not measured{': ' + figures['not_measured'] if figures else ''}", ""]
            continue
        out += ["| what | figure |", "|---|---|"]
        out += [f"| {label} | {value} |" for label, value in _filled(rows(figures))]
        out += ["", f"{how} Measured {figures['measured']} at commit {figures['commit']}.", ""]
    return "\n".join(out)


def headlines(all_figures: dict[str, Figures]) -> str:
    """The short table of the READMEs; empty while nothing is measured."""
    out = []
    for name, labels in HEADLINES.items():
        figures = all_figures.get(name)
        if figures and "not_measured" not in figures:
            rows = dict(_filled(TABLES[name][2](figures)))
            out += [f"| {label} | {rows[label]} |" for label in labels if label in rows]
    return "\n".join(["| what | figure |", "|---|---|", *out] if out else [])


def _filled(rows: Iterator[tuple[str, Callable[[], str]]]) -> Iterator[tuple[str, str]]:
    for label, value in rows:
        try:
            yield label, value()
        except (KeyError, TypeError, ValueError):  # a figure that the command did not give
            yield label, "not measured"


Rows = Iterator[tuple[str, Callable[[], str]]]


def _machine_rows(f: Figures) -> Rows:
    yield "processor", lambda: f"{f['cpu']}, {f['cores']} cores used"
    yield "memory", lambda: f"{f['memory_gib']} GiB"
    yield "system", lambda: f"{f['system']}, Python {f['python']}, torch {f['torch']}"
    yield "load before the start", lambda: f"{f['load_before']:.2f}"


def _install_rows(f: Figures) -> Rows:
    yield "time", lambda: f"{f['seconds']:.0f} s"
    yield "size of the environment", lambda: f"{f['venv_mb']:.0f} MB, of it torch {f['torch_mb']:.0f} MB"


def _start_rows(f: Figures) -> Rows:
    yield "`chatgglm --help`", lambda: f"{f['help_s']:.2f} s"
    yield "`chatgglm ask`, a fresh process, to the answer", lambda: f"{f['ask_s']:.1f} s"
    yield "`chatgglm serve`, to its first answer", lambda: f"{f['server_first_answer_s']:.1f} s"
    yield "the next answers, over HTTP", lambda: f"{f['warm_ask_ms']:.0f} ms"
    yield "memory of the server after that", lambda: f"{f['server_rss_mb']:.0f} MB"


def _ingestion_rows(f: Figures) -> Rows:
    yield "corpus", lambda: f"{f['documents']} Markdown files, {f['mb']:.1f} MB, {f['chunks']} chunks"
    yield "rate, embedding and index included", lambda: f"{f['mb_per_s']:.2f} MB/s, {f['chunks_per_s']:.0f} chunks/s"
    for label, name in {
        "five formats, read and cut by two processes": "processes",
        "five formats, embedding and index included": "ingestion",
        "the same files and embedder, LangChain and FAISS": "langchain",
    }.items():
        if name not in f.get("rates", {}):
            continue
        yield (
            label,
            lambda r=f["rates"][name]: (
                f"{r['mb_per_s']:.2f} MB/s, {r['chunks_per_s']:.0f} chunks/s; a second of all processors: "
                f"{r['mb_per_processor_s']:.2f} MB, {r['chunks_per_processor_s']:.0f} chunks"
            ),
        )
    if "circumstances" in f:
        yield "circumstances", lambda: f["circumstances"]


FORMATS = {
    "text, GBK": "text_gbk.txt",
    "web page with menus and advertisements": "page_utf8.html",
    "the same in GBK, charset not stated": "page_gbk_nometa.html",
    "Word": "doc.docx",
    "PowerPoint": "slides.pptx",
    "EPUB": "book.epub",
    "PDF printed by Chromium": "chromium.pdf",
    "PDF, embedded font": "rl_wqy.pdf",
    "PDF, font not embedded": "rl_cid.pdf",
    "PDF, scanned": "scan.pdf",
    "picture": "ocr.png",
    "picture, askew": "ocr_rot.png",
    "Excel": "made.xlsx",
    "CSV, GBK": "made_gbk.csv",
    "Markdown": "made.md",
    "mail": "made.eml",
    "ZIP archive": "made.zip",
    "text, Big5": "made_big5.txt",
}


def _formats_rows(f: Figures) -> Rows:
    readers = f["formats"]
    for label, name in FORMATS.items():
        own = {reader: found[name] for reader, found in readers.items() if name in found}
        if not own:
            continue
        yield (
            f"{label}: recall / precision",
            lambda own=own: "; ".join(
                f"{r} {100 * x['recall']:.1f} / {100 * x['precision']:.1f} %" for r, x in own.items()
            ),
        )
    speed = {reader: 43 / found["big.pdf"]["seconds"] for reader, found in readers.items() if "big.pdf" in found}
    yield "PDF, pages a CPU second", lambda: "; ".join(f"{reader} {rate:.0f}" for reader, rate in speed.items())
    long = f["long"]
    yield f"PDF of {long['pages']} pages: peak memory of the parsing process", lambda: f"{long['rss_mb']} MB"
    yield (
        f"PDF of {long['pages']} pages: peak memory of the largest process of `chatgglm ingest`",
        lambda: f"{long['ingest_rss_mb']} MB",
    )
    yield (
        f"PDF of {long['pages']} pages: parsed and cut",
        lambda: f"{long['characters']} characters in {long['seconds']:.0f} s",
    )


def _durability_rows(f: Figures) -> Rows:
    def times(found: Figures, when: str) -> int:
        return sum(act.get(when, 0) for act in found["acts"].values())

    points = ("none", "partly", "all")
    for name, label in {"sqlite": "SQLite", "postgres": "PostgreSQL"}.items():
        yield (
            f"{label}: commands killed; of those that change documents before, amid and after their commits",
            lambda found=f[name]: f"{found['kills']}: " + ", ".join(str(times(found, when)) for when in points),
        )
        yield (
            f"{label}: kills that lost or halved a document, let a deleted one be found, or broke the index",
            lambda found=f[name]: str(len(found["violations"])),
        )


def _scale_out_rows(f: Figures) -> Rows:
    yield "one worker on one core", lambda: f"{f['chunks_per_s_1']:.0f} chunks/s"
    yield "two workers, a core each, on the same job", lambda: f"{f['chunks_per_s_2']:.0f} chunks/s"
    yield "speed-up", lambda: f"{f['speed_up']:.2f} ×"
    if "circumstances" in f:
        yield "circumstances", lambda: f["circumstances"]


def _decode_rows(f: Figures) -> Rows:
    yield "model", lambda: f"{f['model']}, {f['parameters'] / 1e6:.1f} M parameters, {f['threads']} thread"
    yield "read one full window / four", lambda: f"{f['read_ms']['1']:.0f} / {f['read_ms']['4']:.0f} ms"
    yield "decode, batch 1", lambda: f"{f['decode_tokens_per_s']:.0f} tokens/s"
    yield "first token", lambda: f"{f['first_token_ms']:.1f} ms"
    yield "share of the measured memory bandwidth", lambda: f"{100 * f['bandwidth_share']:.0f} %"


def _reading_rows(f: Figures) -> Rows:
    names = {
        "cmrc2018_dev": "CMRC 2018 dev",
        "drcd_dev": "DRCD dev (traditional)",
        "authored_dev": "our questions over real documents, dev",
        "authored_docs_dev": "our questions over invented documents, dev",
        "expmrc_cmrc2018_dev": "ExpMRC (CMRC 2018) dev",
    }
    yield "model", lambda: str(f["model"])
    for key, label in names.items():
        r = f.get(key)
        if not r:
            continue
        yield f"{label}, EM / F1", lambda r=r: f"{r['em']:.1f} / {r['f1']:.1f} over {r['count']} questions"
        if "auroc" in r.get("refusal", {}):
            yield (
                f"{label}, refusal",
                lambda r=r: (
                    f"AUROC {r['refusal']['auroc']:.3f}; refused {100 * r['refusal']['refused']:.0f} % of the "
                    f"unanswerable and {100 * r['refusal']['false_refusals']:.0f} % of the answerable ones"
                ),
            )


WAYS = {"words": "words", "dense": "dense", "RRF, dense at 1.0": "RRF", "as shipped": "as shipped"}
RANKED = {
    "trial": "CMRC 2018 trial, 256 paragraphs",
    "cmrc dev": "CMRC 2018 dev, 848 paragraphs",
    "drcd dev": "DRCD dev, 1,000 paragraphs (traditional)",
    "authored dev": "our questions over real documents, dev, 2,868 passages",
    "authored docs dev": "our questions over invented documents, dev, the same passages",
}


def _ranking_rows(f: Figures) -> Rows:
    for name, label in RANKED.items():
        yield (
            f"{label}: R@1 / R@5 / MRR@10",
            lambda name=name: "; ".join(
                f"{way} {m['r@1']:.3f} / {m['r@5']:.3f} / {m['mrr@10']:.3f}"
                for way, m in ((label, f[key][name]) for key, label in WAYS.items())
            ),
        )


def _conversation_rows(f: Figures) -> Rows:
    names = {
        "authored_rewrite_dev": "our follow-ups, dev",
        "rewrite_acl19.heldout": "ACL 2019 utterance rewriting, held out (small talk)",
    }
    for key, label in names.items():
        yield (
            f"made to stand alone, {label}: exact match / ROUGE-L (as typed)",
            lambda r=f["rewriting"][key]: (
                f"{r['em']:.1f} / {r['rouge_l']:.1f} ({r['as_typed']:.1f}) of {r['count']}"
                + (f"; {r['complete_kept']} of {r['complete']} complete ones kept" if r["complete"] else "")
            ),
        )
    for key, label in {"complete": "complete questions", "follow-ups": "follow-ups"}.items():
        yield (
            f"{label} in a conversation: R@1 / R@5",
            lambda g=f["finding"][key]: (
                "; ".join(
                    f"{way} {g[way]['r@1']:.3f} / {g[way]['r@5']:.3f}"
                    for way in ("as typed", "as searched", "gold rewrite")
                )
                + f" ({g['turns']} turns)"
            ),
        )


def _retrieval_rows(f: Figures) -> Rows:
    yield "questions / paragraphs", lambda: f"{f['questions']} / {f['contexts']}"
    for name in ("lexical", "dense", "hybrid"):
        yield f"{name}, R@1 / R@5", lambda name=name: f"{f[name]['r@1']:.3f} / {f[name]['r@5']:.3f}"


def _small_talk_rows(f: Figures) -> Rows:
    yield "model", lambda: f["model"]
    yield "messages with a reply of the decoder's own", lambda: f"{f['fitting']} of {f['count']}"
    yield (
        "of it by topic",
        lambda: "; ".join(f"{topic} {part['fitting']} of {part['count']}" for topic, part in f["by_topic"].items()),
    )


def _end_to_end_rows(f: Figures) -> Rows:
    yes, no, latency = f["answerable"], f["unanswerable"], f["latency_ms"]
    yield "answerable: right, cited into the right document", lambda: f"{yes['right']} % of {yes['count']}"
    yield (
        "of it by type",
        lambda: "; ".join(f"{kind} {part['right']} % of {part['count']}" for kind, part in yes["by_type"].items()),
    )
    yield "answerable: refused", lambda: f"{yes['refused']} %"
    yield "answerable: gold document retrieved", lambda: f"{yes['retrieved']} %"
    yield "unanswerable: refused", lambda: f"{no['refused']} % of {no['count']}"
    yield "citation precision", lambda: f"{f['citations']['precision']} %"
    yield "refusal, AUROC", lambda: f"{f['refusal']['auroc']:.3f}"
    yield "ask, p50 / p95", lambda: f"{latency['p50']:.0f} / {latency['p95']:.0f} ms"


ENGINES = {"ours": "our postings", "fts5": "SQLite FTS5", "tantivy": "tantivy"}
PEERS = {"langchain": "LangChain with FAISS", "haystack": "Haystack, in memory"}


def _lexical_engines_rows(f: Figures) -> Rows:
    yield "chunks / queries", lambda: f"{f['chunks']:,} / {f['queries']}"
    for key, label in ENGINES.items():
        e = f.get(key, {})
        if "not_measured" in e:
            continue
        yield f"{label}: search p50 / p95", lambda e=e: f"{e['p50_ms']:.1f} / {e['p95_ms']:.1f} ms"
        yield (
            f"{label}: the same within 1 % of the chunks",
            lambda e=e: f"{e['filtered_p50_ms']:.1f} / {e['filtered_p95_ms']:.1f} ms",
        )
        yield (
            f"{label}: build, size; add 256; delete 100",
            lambda e=e: f"{e['build_s']:.0f} s, {e['mb']:.0f} MB; {e['add_256_ms']:.0f} ms; {e['delete_ms']:.0f} ms",
        )
        yield (
            f"{label}: same answers after reopening",
            lambda e=e: "yes" if e["same_after_reopening"] and e["deleted_are_gone"] else "no",
        )


def _vector_kinds_rows(f: Figures) -> Rows:
    for count, kinds in f.items():
        if not count.isdecimal():
            continue
        for kind, k in kinds.items():
            yield (
                f"{int(count):,} vectors, {kind}",
                lambda k=k: (
                    f"build {k['build_s']:.1f} s, {k['mb']:.0f} MB, p50 / p95 {k['p50_ms']:.2f} / "
                    f"{k['p95_ms']:.2f} ms, recall@10 {k['recall_at_10']:.3f}"
                ),
            )


def _scale_rows(f: Figures) -> Rows:
    for count, s in f.items():
        if not count.isdecimal():
            continue
        yield "chunks", lambda count=count: f"{int(count):,} of 300 characters, in documents of 16"
        yield (
            "build without embedding, processor time",
            lambda s=s: f"{s['build_cpu_s']:.0f} s; most memory {s['build_peak_mb']:.0f} MB",
        )
        yield "postings / vectors on disk", lambda s=s: f"{s['lexical_mb']:.0f} / {s['vectors_mb']:.0f} MB"
        yield "vector segments", lambda s=s: ", ".join(s["vector_segments"])
        for key, label in (
            ("search", "search, question to passages, p50 / p95"),
            ("lexical", "of it lexical"),
            ("dense", "of it dense"),
            ("rare", "search within 1 % of the documents, by tag"),
            ("often", "search within half of the documents, by tag"),
        ):
            yield label, lambda s=s, key=key: f"{s[key]['p50_ms']:.1f} / {s[key]['p95_ms']:.1f} ms"
        yield "recall@10 of the vectors against exact search", lambda s=s: f"{s['recall_at_10']:.3f}"
        if "note" in s:
            yield "circumstances", lambda s=s: s["note"]
        yield "memory for the index, after the searches", lambda s=s: f"{s['resident_mb']:.0f} MB"
        yield (
            "searches a second with 1 / 4 / 16 clients",
            lambda s=s: " / ".join(f"{s['per_s'][n]:.0f}" for n in ("1", "4", "16")),
        )
    for key, label in PEERS.items():
        p = f.get("peers", {}).get(key)
        if not p or "not_measured" in p:
            continue
        yield f"{label}: build, memory", lambda p=p: f"{p['build_cpu_s']:.0f} s, {p['memory_mb']:.0f} MB"
        yield f"{label}: dense, p50 / p95", lambda p=p: f"{p['dense']['p50_ms']:.1f} / {p['dense']['p95_ms']:.1f} ms"
        if "per_s" in p:
            yield (
                f"{label}: dense searches a second with 1 / 4 / 16 clients",
                lambda p=p: " / ".join(f"{p['per_s'][n]:.0f}" for n in ("1", "4", "16")),
            )
        if "lexical" in p:
            yield (
                f"{label}: lexical, p50 / p95",
                lambda p=p: f"{p['lexical']['p50_ms']:.0f} / {p['lexical']['p95_ms']:.0f} ms",
            )


TABLES: dict[str, tuple[str, str, Callable[[Figures], Rows]]] = {
    "machine": ("Machine", "No GPU is used.", _machine_rows),
    "install": (
        "Installation",
        "`python -m venv`, `pip install -c constraints.txt -e .` with the CPU build of torch; packages came from pip's "
        "cache or a near mirror where there was one, so a slow line takes longer.",
        _install_rows,
    ),
    "start": ("Start", "Median of several runs, user guide in the knowledge base.", _start_rows),
    "ingestion": (
        "Ingestion",
        "`chatgglm ingest FOLDER`, and `python benchmarks/ingest_rate.py --peers PYTHON` for the five formats (TXT in "
        "GB18030, Markdown, HTML, DOCX and PDF, equal shares, made from the guide's sentences; models loaded "
        "beforehand). LangChain keeps vectors and texts alone, in one process, with one thread or two, whichever was "
        "faster; we also write SQL rows, a lexical index and the originals. «A second of all processors» is what other "
        "programs disturb less.",
        _ingestion_rows,
    ),
    "formats": (
        "Characters kept, by format",
        "`python benchmarks/formats.py samples --peers PYTHON`; one text in many formats, characters found in order "
        "(recall), share of what was read that belongs to it (precision; the files hold a little more than the text). "
        "markitdown and pypdf are in an environment of their own; neither does OCR.",
        _formats_rows,
    ),
    "durability": (
        "Commands killed at random points",
        "`python benchmarks/faults.py`: ingest, replace with --sync, ingest --force, delete, merge and rebuild; half "
        "of the kills at a random step (file operation, statement, commit), half at a random moment; each is followed "
        "by checks of every document and by the same command once more.",
        _durability_rows,
    ),
    "scale_out": (
        "Two workers on one job",
        "`python benchmarks/scale_out.py`: `chatgglm jobs work` on PostgreSQL, each worker bound to one core.",
        _scale_out_rows,
    ),
    "lexical_engines": (
        "Lexical engines over the same terms",
        "`python benchmarks/lexical.py`; processor times.",
        _lexical_engines_rows,
    ),
    "vector_kinds": (
        "Kinds of FAISS index",
        "`python benchmarks/vectors.py`; 24,000 pieces of real text embedded by `gglm-embed-zh`, and 100,000 points "
        "between them; processor times of one thread.",
        _vector_kinds_rows,
    ),
    "scale": (
        "A knowledge base of 100,000 chunks",
        "`python benchmarks/index_scale.py 100000 --peers`; latencies are processor times, throughput is not.",
        _scale_rows,
    ),
    "scale_million": (
        "A knowledge base of 1,000,000 chunks",
        "`python benchmarks/index_scale.py 1000000`; latencies are processor times, throughput is not.",
        _scale_rows,
    ),
    "decode": ("Generator", "`chatgglm bench`, one thread.", _decode_rows),
    "reading": (
        "Reading, gold paragraph given",
        "`chatgglm eval reading FILE…`; official CMRC 2018 EM and F1 in percent.",
        _reading_rows,
    ),
    "retrieval": (
        "Retrieval over the CMRC 2018 dev paragraphs",
        "`chatgglm eval retrieval cmrc2018_dev.jsonl.zst`.",
        _retrieval_rows,
    ),
    "ranking": (
        "Retrieval over five sets of questions",
        "`python benchmarks/ranking.py --questions 0 --no-reader`; fusion chosen on trial, the others report "
        "(docs/decisions/008).",
        _ranking_rows,
    ),
    "conversation": (
        "Follow-up questions",
        "`python benchmarks/followups.py`: rules alone, no model; conversations over 3,000 passages.",
        _conversation_rows,
    ),
    "small_talk": (
        "Small talk",
        "`python benchmarks/smalltalk.py`: messages that occur in no training file; the others get a fixed reply.",
        _small_talk_rows,
    ),
    "end_to_end": (
        "End to end: 12 documents in several formats, with questions",
        "`python benchmarks/e2e.py e2e_dev`; what counts as right is said in `rag/evaluation/answers.py`.",
        _end_to_end_rows,
    ),
    "end_to_end_written": (
        "End to end: 33 invented documents of seven kinds, with questions",
        "`chatgglm train questions data/questions/dev -o dev; python benchmarks/e2e.py dev`. 450 of its questions "
        "served to calibrate asking.",
        _end_to_end_rows,
    ),
    "end_to_end_hard": (
        "End to end: 28 longer documents that resemble each other, long answers and near misses",
        "The same with `data/questions/dev-hard`, which served to calibrate asking.",
        _end_to_end_rows,
    ),
    "end_to_end_tables": (
        "End to end: 33 documents with many tables",
        "The same with `data/questions/dev-tables`, which served to calibrate asking.",
        _end_to_end_rows,
    ),
}
HEADLINES = {
    "reading": ["CMRC 2018 dev, EM / F1"],
    "retrieval": ["hybrid, R@1 / R@5"],
    "end_to_end": [
        "answerable: right, cited into the right document",
        "unanswerable: refused",
        "ask, p50 / p95",
    ],
    "decode": ["decode, batch 1"],
    "ingestion": ["rate, embedding and index included"],
    "start": ["`chatgglm ask`, a fresh process, to the answer", "memory of the server after that"],
    "install": ["size of the environment"],
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
