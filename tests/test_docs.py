"""What the documentation says is so: commands, options, links, settings, formats, make targets."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "ingest" / "guide" / "zh"
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *GUIDE.glob("*.md")] if path.name != "log.md"
)


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.fixture(scope="module")
def cli() -> Any:
    from api.cli import app

    return typer.main.get_command(app)


def commands(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the tree by its words."""
    for name, command in group.commands.items():
        yield (*prefix, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))


def options(command: Any) -> set[str]:
    return {opt for p in command.params for opt in (*p.opts, *p.secondary_opts) if opt.startswith("-")}


def shown(text: str) -> Iterator[str]:
    """Lines with a `chatgglm` command, from code blocks and code spans."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in (line for part in [*blocks, *spans] for line in part.splitlines()):
        if found := re.match(r"(?:CHATGGLM_\w+=\S+ )*(?:\S*/)?chatgglm (.+)", line.strip()):
            yield found[1].split(" #")[0]


@pytest.mark.parametrize("path", PAGES, ids=names(PAGES))
def test_commands_that_the_pages_show_exist(path: Path, cli: Any) -> None:
    known = dict(commands(cli))
    wrong = []
    for line in shown(path.read_text(encoding="utf-8")):
        words = line.split()
        if words[0].startswith("-"):
            here, rest = cli, words
        else:
            variants = words[0].strip(",").split("|")
            name = (variants[0],)
            here, rest = known.get(name), words[1:]
            if here is not None and hasattr(here, "commands") and rest and not rest[0].startswith("-"):
                for sub in rest[0].split("|"):
                    if (*name, sub) not in known:
                        wrong.append(f"{name[0]} {sub}")
                here, rest = known.get((*name, rest[0].split("|")[0])), rest[1:]
        if here is None:
            if re.fullmatch(r"[a-z-]+", words[0]):
                wrong.append(words[0])
            continue
        for word in rest:
            option = word.split("=")[0]
            if re.fullmatch(r"--?[a-z][a-z-]*", option) and option not in options(here) | {"--help", "-h"}:
                wrong.append(f"{line}: {option}")
    assert not wrong, wrong


def test_the_readme_names_every_group_and_the_main_commands(cli: Any) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in cli.commands if name not in readme]
    assert not missing


def test_the_cli_reference_is_complete(cli: Any) -> None:
    """docs/cli.md (`make docs`) holds every command with every option, and no other."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    known = dict(commands(cli))
    titles = {tuple(t.split()[1:]) for t in re.findall(r"^#{1,4} `(chatgglm[^`]*)`", text, re.MULTILINE)}
    assert titles - {()} == set(known)
    sections = re.split(r"^#{1,4} `chatgglm ?([^`]*)`$", text, flags=re.MULTILINE)
    bodies = dict(zip((tuple(s.split()) for s in sections[1::2]), sections[2::2], strict=True))
    for name, command in known.items():
        missing = {opt for opt in options(command) if opt.startswith("--") and opt not in bodies[name]}
        assert not missing, (name, missing)


@pytest.mark.parametrize("path", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists():
            broken.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            if anchor not in slugs:
                broken.append(target)
    assert not broken, broken


def test_make_targets_that_the_pages_show_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        used = {
            word
            for line in re.findall(r"(?:^|`)make ([a-z][^`\n#]*)", text, re.MULTILINE)
            for word in line.split()
            if re.fullmatch(r"[a-z]+", word)
        }
        assert used <= targets, (path.name, used - targets)


def test_make_help_lists_the_targets() -> None:
    out = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("install", "run", "test", "lint", "format", "types", "bench", "docs", "widget", "train", "clean"):
        assert f"make {target} " in out


def test_the_guide_tells_the_settings_as_they_are() -> None:
    from pydantic import SecretStr

    from rag.settings import Settings

    fields = Settings.model_fields
    told: dict[str, str] = {}
    for path in [*GUIDE.glob("*.md"), ROOT / "README.md", ROOT / "README.zh.md", ROOT / "docs" / "deployment.md"]:
        for name in re.findall(r"CHATGGLM_([A-Z_]+)", path.read_text(encoding="utf-8")):
            told.setdefault(name, path.name)
    others = {"DEBUG", "SHARED", "READER_API_KEY"}  # not settings: the console's, the benchmarks', a reader's own
    unknown = {name: page for name, page in told.items() if name.lower() not in fields and name not in others}
    assert not unknown
    table = re.findall(
        r"^\| CHATGGLM_(\w+) \| (.+?) \|", (GUIDE / "13-settings.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(table) >= 10
    for name, default in table:
        value = fields[name.lower()].default
        said = default.startswith("空") if value in ("", None, [], SecretStr("")) else default == str(value).lower()
        assert said or default == str(value), (name, default, value)


def test_the_guide_tells_the_formats_and_reasons_as_they_are() -> None:
    from ingest.archives import SUFFIXES
    from ingest.formats import PARSERS
    from rag.types import Reason

    formats = (GUIDE / "05-formats.md").read_text(encoding="utf-8")
    told = re.findall(r"(?<![a-z])\.[a-z0-9]+(?:\.[a-z0-9]+)?", formats.split("## ")[1])
    assert set(told) == {*PARSERS, *SUFFIXES}
    assert all(f"{reason}（" in (GUIDE / "07-refusal.md").read_text(encoding="utf-8") for reason in get_args(Reason))


def test_the_guide_can_be_ingested() -> None:
    """Every page has a title, parses whole, and its answers stay in one chunk with their question."""
    from ingest.chunk import chunk
    from ingest.formats import parse
    from ingest.guide import bundled

    pages = sorted(bundled().glob("*.md"))
    assert len(pages) >= 10
    for path in pages:
        parsed = parse(path)
        source = path.read_text(encoding="utf-8")
        assert parsed.title == source.splitlines()[0].removeprefix("# ")
        chunks = chunk(parsed)
        assert chunks
        for question in re.findall(r"^## (.+)$", source, re.MULTILINE):
            assert any(question in c.heading or question in parsed.text[c.char_start : c.char_end] for c in chunks), (
                path.name,
                question,
            )
