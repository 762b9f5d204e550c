"""Sizes of chunks: from the settings, or asked for once and kept by the knowledge base."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import select
from typer.testing import CliRunner

from ingest.chunk import Sizes
from ingest.pipeline import ingest, run_job, submit
from ingest.plan import dry_run
from ingest.sizes import chunk_sizes
from rag.errors import InvalidInput
from rag.service import Service
from rag.settings import Settings
from rag.store.documents import Document
from rag.store.kbs import get_kb
from rag.store.models import Chunk, DocumentVersion
from tests.ingest.installation import installation

SENTENCE = "第{}号水泵每个月由值班人员检查一次，检查的结果记录在册。"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return installation(tmp_path / "home")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "制度.txt", 0)


def write(file: Path, first: int) -> Path:
    file.write_text("".join(SENTENCE.format(i) for i in range(first, first + 60)), encoding="utf-8")
    return file


def spans(service: Service) -> tuple[str, list[tuple[int, int]]]:
    """Text of the only live version, and its chunks."""
    with service.database.session() as session:
        version = session.scalars(
            select(DocumentVersion).join(Document).where(DocumentVersion.deleted_at.is_(None))
        ).one()
        rows = session.execute(
            select(Chunk.char_start, Chunk.char_end).where(Chunk.version_id == version.id).order_by(Chunk.ordinal)
        )
        return version.text, [(start, end) for start, end in rows]


def longest(service: Service) -> int:
    text, chunks = spans(service)
    return max(Sizes(text).of(start, end) for start, end in chunks)


def test_sizes_once_asked_for_hold_for_replacements_and_retries(service: Service, file: Path) -> None:
    asked = {"chunk_target": 90, "chunk_max": 120, "chunk_overlap": 40}
    assert ingest(service, [file], sizes=asked).ok
    assert longest(service) <= 120
    text, chunks = spans(service)
    assert all(second < first_end for (_, first_end), (second, _) in itertools.pairwise(chunks))
    write(file, 500)
    assert dry_run([file], settings=service.settings).totals["chunks"] == len(chunks)
    assert ingest(service, [file]).ok
    assert spans(service)[0] != text
    assert longest(service) <= 120
    job = submit(service, [write(file, 900)], sizes={"chunk_overlap": 0})
    assert run_job(service, job).ok
    _, chunks = spans(service)
    assert longest(service) <= 120
    assert all(second >= first_end for (_, first_end), (second, _) in itertools.pairwise(chunks))
    before = spans(service)
    service.indexes.rebuild("default")
    assert spans(service) == before
    assert service.indexes.verify("default").ok


def test_settings_hold_where_nothing_was_asked(tmp_path: Path, file: Path) -> None:
    service = installation(tmp_path / "home")
    service.settings = service.settings.model_copy(update={"chunk_target": 60, "chunk_max": 80})
    assert ingest(service, [file]).ok
    assert longest(service) <= 80
    with service.database.session() as session:
        assert get_kb(session, "default").chunking is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"chunk_target": 600}, "the maximum"),
        ({"chunk_max": 100_000}, "maximum chunk size"),
        ({"chunk_target": 5}, "must lie within 40"),
        ({"chunk_overlap": 300}, "half the target"),
        ({"chunk_overlap": -1}, "half the target"),
    ],
)
def test_senseless_sizes_are_refused_and_nothing_is_written(
    service: Service, file: Path, asked: dict[str, int], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        submit(service, [file], sizes=asked)
    with service.database.session() as session:
        assert not session.scalars(select(Document)).all()
    with pytest.raises(InvalidInput, match=said):
        dry_run([file], sizes=asked, settings=service.settings)


def test_senseless_settings_are_refused(tmp_path: Path) -> None:
    for wrong in ({"chunk_target": 490}, {"chunk_overlap": 191}, {"chunk_max": 39}):
        with pytest.raises(ValidationError, match="chunk_"):
            Settings(home=tmp_path, **wrong)  # type: ignore[arg-type]


def test_what_is_not_asked_for_comes_from_the_knowledge_base(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    kept = {"chunk_target": 200, "chunk_max": 300, "chunk_overlap": 50}
    assert chunk_sizes(settings).chunk_max == settings.chunk_max
    assert chunk_sizes(settings, kept).to_dict() == kept
    sizes = chunk_sizes(settings, kept, {"chunk_target": 250, "chunk_max": None})
    assert sizes.to_dict() == kept | {"chunk_target": 250}


def test_the_commands(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from api.cli import app
    from rag.settings import get_settings

    monkeypatch.setenv("CHATGGLM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()  # what another test has read
    request.addfinalizer(get_settings.cache_clear)
    run = CliRunner().invoke
    shown = run(app, ["chunks", str(file), "--json", "--chunk-target", "90", "--chunk-max", "120"])
    assert shown.exit_code == 0, shown.output
    assert max(chunk["tokens"] for chunk in json.loads(shown.stdout)["chunks"]) <= 120
    kept = {"chunk_target": 90, "chunk_max": 120, "chunk_overlap": 10}
    assert ingest(installation(tmp_path / "home"), [file], "fine", sizes=kept).ok
    listed = json.loads(run(app, ["kb", "list", "--json"]).stdout)["knowledge_bases"]
    assert {row["kb"]: row["chunking"] for row in listed}["fine"] == kept
    refused = run(app, ["ingest", str(file), "--dry-run", "--chunk-target", "900"])
    assert refused.exit_code != 0
