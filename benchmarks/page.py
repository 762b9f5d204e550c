"""The page docs/benchmarks.md and the READMEs' short table, from the figures that `run_all` keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Figures = dict[str, Any]


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
    try:
        for label, value in rows:
            try:
                yield label, value()
            except (KeyError, TypeError, ValueError):  # a figure that the command did not give
                yield label, "not measured"
    except (KeyError, TypeError):  # a whole part that it did not give
        yield "the rest", "not measured"


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


def _refusal_rows(f: Figures) -> Rows:
    names = {"authored_dev": "our questions over real documents, dev", "cmrc2018_trial": "CMRC 2018 trial"}
    for key, label in names.items():
        r = f.get(key)
        if not r:
            continue
        if "auroc" in r["refusal"]:
            yield (
                f"{label}: near misses, AUROC; calibration error (ECE)",
                lambda r=r: f"{r['refusal']['auroc']:.3f}; {r['refusal']['ece']:.3f}",
            )
        d = r["distractors"]
        yield f"{label}: other passages only, AUROC", lambda d=d: f"{d['distractors_only']['auroc']:.3f}"
        yield (
            f"{label}: F1 over the own passage and 0 … 4 others",
            lambda d=d: " / ".join(f"{d['beside_own'][n]['f1']:.1f}" for n in sorted(d["beside_own"])),
        )
        yield (
            f"{label}: relevance of the own and four other passages, AUROC; ECE",
            lambda d=d: f"{d['relevance']['auroc']:.3f}; {d['relevance']['ece']:.3f}",
        )
        yield (
            f"{label}: answers out of the own passage",
            lambda d=d: " / ".join(
                f"{100 * d['beside_own'][n]['own_paragraph']:.0f} %" for n in sorted(d["beside_own"])
            ),
        )


def _writing_rows(f: Figures) -> Rows:
    ways = {"lead_sentence": "the first sentence", "lead_same_length": "opening sentences of that length"}
    for key, label in {"papers": "introduction to abstract", "pages": "page to description"}.items():
        r = f["summary"][key]
        yield (
            f"summary, {label}, {r['rows']} texts: ROUGE-1 / 2 / L",
            lambda r=r: "; ".join(
                f"{name} {x['rouge1']:.1f} / {x['rouge2']:.1f} / {x['rougeL']:.1f}"
                for name, x in {r["method"]: r, **{ways[k]: v for k, v in r["baselines"].items() if k in ways}}.items()
            ),
        )
    yield (
        "small talk, held out: loss a character (by single characters' frequency)",
        lambda: f"{f['chat']['loss_per_character']:.2f} ({f['chat']['unigram_loss']:.2f})",
    )


def _translation_rows(f: Figures) -> Rows:
    names = {
        "everyday": "everyday sentences (Tatoeba)",
        "office": "LibreOffice's help",
        "technical": "technical documents",
        "captions": "captions of pictures",
        "news": "news (WMT21)",
    }
    for key, label in names.items():
        r = f[key]
        yield (
            f"{label}, {r['rows']}: chrF (BLEU); a word-by-word gloss out of CC-CEDICT",
            lambda r=r: "; ".join(f"{x['chrf']:.1f} ({x['bleu']:.1f})" for x in (r, r["baselines"]["gloss"])),
        )
    yield (
        "texts it is sure of; chrF of these and of the others",
        lambda: "; ".join(
            f"{label.split(' (')[0]} {100 * f[key]['sure']['share']:.0f} %: "
            + " / ".join(
                "–" if f[key]["sure"][k] is None else f"{f[key]['sure'][k]:.0f}" for k in ("chrf", "chrf_others")
            )
            for key, label in names.items()
        ),
    )
    yield "milliseconds a text, everyday to news", lambda: " / ".join(f"{f[key]['ms_per_text']:.0f}" for key in names)


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
    "refusal": (
        "Refusing, and other passages beside the right one",
        "`chatgglm eval refusal FILE…`: gold paragraph given; then with the most similar other passages of the file "
        "beside it (300 questions), and with those alone.",
        _refusal_rows,
    ),
    "writing": (
        "Summaries and small talk",
        "`chatgglm eval summary FILE… --limit 150`, `chatgglm eval chat data/smalltalk/dev.jsonl`.",
        _writing_rows,
    ),
    "translation": (
        "Translation, Chinese into English (experimental)",
        "`chatgglm eval translation FILE… --glossary CC-CEDICT --limit 100`, sentences that were not trained on.",
        _translation_rows,
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
