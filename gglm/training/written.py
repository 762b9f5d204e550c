"""Questions written by hand beside their documents: a plain text format, and the rows made of it.

    # 净水器手册
    保修期十八个月，自购买之日起算。滤芯不在保修之列，每根 85 元。
    ---
    ? 坏了多久内能免费修
    = 十八个月
    ? 保修从哪天算起，滤芯管不管
    = 自购买之日起……不在保修之列
    ? 滤芯也保修吗？
    ! 不保，滤芯不在保修之列。
    > 滤芯不在保修之列
    ? 换两根滤芯多少钱？
    ~ 170 元
    > 每根 85 元
    ? 净水器每小时出多少水？
    x

A file holds any number of documents. ``=`` copies the answer out of the text (its first occurrence), ``!`` answers yes
or no and ``~`` anything else in own words, each with its evidence behind ``>``; ``x``: the text does not answer it.
``……`` stands for whatever lies between the beginning and the end of a long quotation.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gglm.errors import DataError

LONG = 24
"""Characters from which on a copied answer counts as a long one."""
_KINDS = {"!": "yesno", "~": "abstractive"}


@dataclass(frozen=True)
class Problem:
    """What a question was left out for."""

    title: str
    question: str
    reason: str

    def __str__(self) -> str:
        return f"{self.title} | {self.question}: {self.reason}" if self.question else f"{self.title}: {self.reason}"


def parse(text: str) -> Iterator[dict[str, Any] | Problem]:
    """Rows as `gglm.training.reading` reads them (title, context, question, type, answers …) and what is wrong."""
    for document in re.split(r"(?m)^# ", text)[1:]:
        head, line, asked = document.partition("\n---\n")
        title, _, context = (part.strip() for part in head.partition("\n"))
        if not line or not context:
            yield Problem(title, "", "no text, or no line of three hyphens between it and its questions")
            continue
        for block in re.split(r"(?m)^\? ", asked)[1:]:
            yield _row(title, context, [part for x in block.splitlines() if (part := x.strip()) and part != "---"])


def _row(title: str, context: str, lines: list[str]) -> dict[str, Any] | Problem:
    question, answer = lines[0], lines[1] if len(lines) > 1 else ""
    row = {"title": title, "context": context, "question": question}
    mark, said = answer[:1], answer[1:].strip()
    if mark == "x":
        return {**row, "type": "unanswerable", "answerable": False, "answers": [], "evidence": ""}
    if mark not in ("=", *_KINDS) or not said:
        return Problem(title, question, "no answer: a line that begins with =, !, ~ or x")
    shown = said if mark == "=" else next((x[1:].strip() for x in lines[2:] if x.startswith(">")), "")
    found = find(context, shown)
    if found is None:
        return Problem(title, question, f"not in the text: {shown or 'no evidence given'}")
    start, end = found
    quote = context[start:end]
    if mark == "=":
        kind, answers = "long" if len(quote) > LONG else "span", [{"text": quote, "start": start}]
    else:
        kind, answers = _KINDS[mark], [{"text": said, "start": -1}]
    return {**row, "type": kind, "answerable": True, "answers": answers, "evidence": quote}


def write_folder(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """The rows as documents to ask: ``docs/TITLE.md``, and ``questions.jsonl`` whose ``doc`` names them (null: not
    answered).

    Raises:
        DataError: the folder is there already and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already: name a new folder")
    names: dict[tuple[str, str], str] = {}
    (folder / "docs").mkdir(parents=True)
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            document = row["title"], row["context"]
            if document not in names:
                stem = re.sub(r'[\\/:*?"<>|\s]+', "_", row["title"]).strip("_.")[:60] or "document"
                taken = {name.casefold() for name in names.values()}
                made = (f"{stem} ({n}).md" if n > 1 else f"{stem}.md" for n in itertools.count(1))
                names[document] = next(name for name in made if name.casefold() not in taken)
                (folder / "docs" / names[document]).write_text(
                    f"# {row['title']}\n\n{row['context']}\n", encoding="utf-8"
                )
            asked = {k: v for k, v in row.items() if k not in ("title", "context")}
            asked["doc"] = names[document] if row["answers"] else None
            asked["answers"] = [answer["text"] for answer in row["answers"]]
            file.write(json.dumps(asked, ensure_ascii=False) + "\n")


def find(text: str, quotation: str) -> tuple[int, int] | None:
    """Code points of a quotation; ``……`` in it leaves out what lies between its beginning and its end."""
    if not quotation:
        return None
    if (at := text.find(quotation)) >= 0:
        return at, at + len(quotation)
    first, dots, last = re.split(r"(…+)", quotation, maxsplit=1) if "…" in quotation else (quotation, "", "")
    start = text.find(first) if dots and first and last else -1
    end = text.find(last, start + len(first)) if start >= 0 else -1
    return (start, end + len(last)) if end >= 0 else None
