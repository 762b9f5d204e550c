"""`chatgglm search | ask | chat | eval retrieval | eval answers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gglm.console import err_console, friendly_errors, print_json, progress, write_stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag.service import Service
    from rag.types import Answer, Passage, Turn

Kb = Annotated[str, typer.Option("--kb", help="Knowledge base.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add the commands of retrieval and answering, and those of knowledge bases and documents."""
    from rag import cli_kb

    app.command()(search)
    app.command()(ask)
    app.command()(chat)
    groups["eval"].command("retrieval")(eval_retrieval)
    groups["eval"].command("answers")(eval_answers)
    cli_kb.register(app, groups)


@friendly_errors
def search(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    kb: Kb = "default",
    k: Annotated[int, typer.Option("-k", help="Number of results.", min=1, max=1000)] = 10,
    as_json: Json = False,
) -> None:
    """Find the passages that fit a question best."""
    from rag.wire import passage_to_dict

    service = _service()
    passages = service.retriever.search(question, kb, k)
    if as_json:
        print_json({"results": [passage_to_dict(p) for p in passages]})
    elif passages:
        _print_passages(passages)
    else:
        err_console.print("没有找到相关内容。", style="yellow")


@friendly_errors
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    kb: Kb = "default",
    history: Annotated[
        Path | None,
        typer.Option(
            "--history",
            help='Earlier messages: a JSON list of {"role": "user|assistant", "content": "…"}.',
            metavar="FILE.json",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Answer a question from the documents, with citations, or say that they do not hold the answer."""
    from rag.wire import answer_to_dict

    turns = _read_history(history) if history else ()
    answer = _service().answerer.ask(question, kb, turns)
    if as_json:
        print_json(answer_to_dict(answer))
    else:
        _print_answer(answer)


@friendly_errors
def chat(kb: Kb = "default") -> None:
    """Ask one question after the other; follow-ups may lean on what was said before."""
    import sys

    from rag.errors import InvalidInput
    from rag.types import Turn

    service = _service()
    service.answerer.retriever.generation(kb)  # an unknown knowledge base is told before the first question
    talks = sys.stdin.isatty()
    if talks:
        err_console.print("直接提问；/new 开始新对话，/exit 退出。", style="dim")
    turns: list[Turn] = []
    while True:
        if talks:
            err_console.print("❯ ", end="", style="bold cyan")
        line = sys.stdin.readline()
        if not line or line.strip() in {"/exit", "/quit"}:
            return
        if line.strip() == "/new":
            turns = []
            continue
        if not line.strip():
            continue
        try:
            answer = service.answerer.ask(line.strip(), kb, turns)
        except InvalidInput as error:
            err_console.print(error.message, style="red", markup=False)
            continue
        _print_answer(answer)
        turns += [Turn("user", line.strip()), Turn("assistant", answer.answer)]


@friendly_errors
def eval_retrieval(
    file: Annotated[
        Path,
        typer.Argument(
            help='JSON lines (also .zst) with "question" and "context".', exists=True, dir_okay=False
        ),
    ],
    dense: Annotated[bool, typer.Option(help="Score the embedder and the hybrid too.")] = True,
    as_json: Json = False,
) -> None:
    """Recall@k and MRR over the distinct contexts of a file: lexical, dense, hybrid."""
    from rag.evaluation.retrieval import evaluate
    from rag.evaluation.rows import read_rows
    from rag.index.lexical import Bm25Index
    from rag.index.vectors import FaissStore
    from rag.settings import get_settings

    embedder = None
    if dense:
        from rag.embedders import load_embedder

        embedder = load_embedder(get_settings().embedder)
    vectors = FaissStore(embedder.dim) if embedder is not None else None
    with progress() as bar:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        report = evaluate(read_rows(file), embedder, Bm25Index(), vectors, step)
    if as_json:
        print_json(report)
        return
    rows = [(name, report[name]) for name in ("lexical", "dense", "hybrid") if name in report]
    columns = ["r@1", "r@5", "r@10", "mrr", "ndcg@10"]
    _print_table(
        f"{report['questions']} questions, {report['contexts']} contexts",
        ["", *columns],
        [[name, *(f"{scores[c]:.4f}" for c in columns)] for name, scores in rows],
    )


@friendly_errors
def eval_answers(
    file: Annotated[
        Path,
        typer.Argument(
            help='JSON lines (also .zst) with "question", "doc" (null: not answered) and "answers".',
            exists=True,
            dir_okay=False,
        ),
    ],
    kb: Kb = "default",
    as_json: Json = False,
) -> None:
    """Right answers with a right citation, refusals and latency over a knowledge base."""
    from rag.evaluation.answers import evaluate, questions
    from rag.evaluation.rows import read_rows

    items = questions(read_rows(file))
    service = _service()
    service.answerer.retriever.generation(kb)
    with progress() as bar:
        task = bar.add_task("asking", total=len(items))
        report = evaluate(service.answerer, items, kb, lambda done, _: bar.update(task, completed=done))
    if as_json:
        print_json(report)
    else:
        _print_table("Answers", ["", ""], [[name, value] for name, value in headline(report)])
    if report["failed"]:
        raise typer.Exit(1)


def headline(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures of an answer report that are read first."""
    answerable, unanswerable = report["answerable"], report["unanswerable"]
    latency = report["latency_ms"]
    return [
        (
            "answerable: right, cited into the right document",
            f"{answerable['right']} % of {answerable['count']}",
        ),
        ("answerable: refused", f"{answerable['refused']} %"),
        ("answerable: gold document retrieved", f"{answerable['retrieved']} %"),
        ("unanswerable: refused", f"{unanswerable['refused']} % of {unanswerable['count']}"),
        ("citation precision", f"{report['citations']['precision']} %"),
        ("refusal AUROC", f"{report['refusal']['auroc']}"),
        ("latency p50 / p95", f"{latency['p50']} / {latency['p95']} ms"),
    ]


def _service() -> Service:
    from rag.service import get_service
    from rag.settings import get_settings

    return get_service(get_settings())


def _read_history(path: Path) -> tuple[Turn, ...]:
    import json

    from rag.errors import InvalidInput
    from rag.types import Turn

    form = 'It must be a JSON list of {"role": "user" or "assistant", "content": "text"}.'
    try:
        turns = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InvalidInput(f"{path.name} is not JSON in UTF-8: {error}. {form}") from error
    if not isinstance(turns, list):
        raise InvalidInput(f"{path.name} holds no list. {form}")
    parsed = []
    for number, turn in enumerate(turns, start=1):
        if (
            not isinstance(turn, dict)
            or turn.get("role") not in ("user", "assistant")
            or not isinstance(turn.get("content"), str)
        ):
            raise InvalidInput(f"{path.name}, message {number} cannot be used. {form}")
        parsed.append(Turn(turn["role"], turn["content"]))
    return tuple(parsed)


def _where(path: str, page: int | None) -> str:
    return f"{path} 第 {page} 页" if page else path


def _print_answer(answer: Answer) -> None:
    """Answer, supporting sentences, then where each citation points."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    style = "bold" if answer.reason == "answered" else "yellow" if not answer.answerable else ""
    head, _, rest = answer.display.partition("\n\n")
    console.print(Text(head, style=style))
    if rest:
        console.print(Text(rest))
    seen = set()
    for citation in answer.citations:
        if citation.marker not in seen:
            seen.add(citation.marker)
            where = _where(citation.path, citation.page)
            console.print(
                Text(
                    f"[{citation.marker}] {where}  字符 {citation.char_start}–{citation.char_end}",
                    style="dim",
                )
            )
    console.print()


def _print_passages(passages: Sequence[Passage]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for rank, passage in enumerate(passages, start=1):
        heading = f" › {passage.heading}" if passage.heading else ""
        where = _where(passage.path, passage.page)
        console.print(Text(f"{rank}. {where}{heading}  {passage.score:.3f}", style="bold"))
        text = " ".join(passage.text.split())
        console.print(Text(f"   {text[:200]}{'…' if len(text) > 200 else ''}"))


def _print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    write_stdout(captured.get())
