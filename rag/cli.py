"""`chatgglm search | ask | chat`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gglm.console import err_console, friendly_errors, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag.filters import Filters
    from rag.service import Service
    from rag.types import Answer, Passage, Turn

Kb = Annotated[str, typer.Option("--kb", help="Knowledge base.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Documents = Annotated[
    list[str] | None, typer.Option("--document", help="Only in this document; may be repeated.", metavar="ID|PATH")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="Only in documents with this tag; repeated: with all.", metavar="TAG")
]
Since = Annotated[str, typer.Option("--since", help="Only in documents of this day or later.", metavar="YYYY-MM-DD")]
Until = Annotated[str, typer.Option("--until", help="Only in documents of this day or earlier.", metavar="YYYY-MM-DD")]


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add the commands of retrieval and answering, and those of knowledge bases and documents."""
    from rag import cli_embed, cli_kb, cli_own

    app.command()(search)
    app.command()(ask)
    app.command()(chat)
    cli_kb.register(app, groups)
    cli_own.register(app, groups)
    cli_embed.register(app, groups)


@friendly_errors
def search(
    question: Annotated[str, typer.Argument(help="What to look for.")],
    kb: Kb = "default",
    k: Annotated[int, typer.Option("-k", help="Number of results.", min=1, max=1000)] = 10,
    documents: Documents = None,
    tags: Tags = None,
    since: Since = "",
    until: Until = "",
    as_json: Json = False,
) -> None:
    """Find the passages that fit a question best."""
    from rag.wire import passage_to_dict

    service = _service()
    filters = _filters(service, kb, documents, tags, since, until)
    passages = service.retriever.search(question, kb, k, filters)
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
    documents: Documents = None,
    tags: Tags = None,
    since: Since = "",
    until: Until = "",
    as_json: Json = False,
) -> None:
    """Answer a question from the documents, with citations, or say that they do not hold the answer."""
    from rag.wire import answer_to_dict

    turns = _read_history(history) if history else ()
    service = _service()
    filters = _filters(service, kb, documents, tags, since, until)
    answer = service.answerer.ask(question, kb, turns, filters)
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


def _service() -> Service:
    from rag.service import get_service
    from rag.settings import get_settings

    return get_service(get_settings())


def _filters(
    service: Service, kb: str, documents: Sequence[str] | None, tags: Sequence[str] | None, since: str, until: str
) -> Filters | None:
    """Raises NotFound for a document that is not there, InvalidInput for what is no day."""
    from rag.filters import Filters, day
    from rag.store.documents import get_document
    from rag.store.kbs import get_kb

    with service.retriever.database.session() as session:
        ids = [get_document(session, name, get_kb(session, kb)).id for name in documents or ()]
    return Filters(tuple(ids), tags=tuple(tags or ()), since=day(since), until=day(until)) or None


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
