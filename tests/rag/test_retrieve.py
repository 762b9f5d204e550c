"""Retrieval over a real store and real indexes: fusion, tombstones, filters, reranking, merging."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from rag.errors import InvalidInput, NotFound
from rag.filters import Filters, allowed_chunks, day
from rag.retrieve import Retriever, diverse, merge_neighbours
from rag.store.kbs import get_kb
from rag.store.models import Chunk, DocumentVersion
from rag.types import Passage, Scores
from tests.rag.world import SentenceReader, World

DOCUMENTS = {
    "考勤制度.md": "# 年假\n\n员工连续工作满一年的，每年享受带薪年假五天。\n\n"
    "# 病假\n\n病假须提交医院证明，病假工资按八成发放。",
    "印章规定.md": "# 骑缝章\n\n合同满5页的须加盖骑缝章。\n\n# 外带\n\n外带公章须经总经理书面批准，由两人同行。",
    "食堂.txt": "食堂午餐时间为十一点半到一点。\n\n晚餐时间为五点半到七点。",
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def retriever(world: World, reader: SentenceReader | None = None) -> Retriever:
    return Retriever(world.database, world.indexes, world.embedder, reader, world.settings)


def test_the_fitting_passage_comes_first_with_its_scores_and_place(world: World) -> None:
    ids = world.put(DOCUMENTS)
    first, *rest = retriever(world).search("带薪年假有几天", k=3)
    assert first.document_id == ids["考勤制度.md"]
    assert (first.path, first.title, first.heading) == ("考勤制度.md", "考勤制度", "年假")
    assert first.text == world.text(first.version_id)[first.char_start : first.char_end]
    assert first.scores.lexical is not None
    assert first.scores.dense is not None
    assert first.score >= max(p.score for p in rest)
    assert first.page == 1


def test_a_deleted_document_never_surfaces_while_the_index_still_holds_it(world: World) -> None:
    ids = world.put(DOCUMENTS)
    world.delete(ids["考勤制度.md"])
    for k in (1, 3, 10):
        found = retriever(world).search("带薪年假有几天", k=k)
        assert found
        assert all(p.document_id != ids["考勤制度.md"] for p in found)
    assert retriever(world).texts([1]) == {}


def test_tombstones_do_not_eat_the_results(world: World) -> None:
    """Many deleted chunks rank above the live one; it is found all the same."""
    many = world.put({f"旧版{i}.md": f"带薪年假有{i}天，年假制度旧版。" for i in range(60)})
    live = world.put({"新版.md": "年假改为五天。"})
    for document_id in many.values():
        world.delete(document_id)
    assert [p.document_id for p in retriever(world).search("带薪年假有几天", k=5)] == [live["新版.md"]]


def test_a_replaced_version_is_not_found_by_its_old_words(world: World) -> None:
    world.put({"a.md": "旧密码是青苹果。"})
    world.put({"a.md": "新密码是红石榴。"})
    found = retriever(world).search("密码是青苹果吗", k=10)
    assert [p.text for p in found] == ["新密码是红石榴。"]


def test_knowledge_bases_are_apart(world: World) -> None:
    world.put(DOCUMENTS)
    world.put({"b.md": "另一个库里的年假是十天。"}, kb="other")
    assert {p.path for p in retriever(world).search("年假几天", "other")} == {"b.md"}
    assert "b.md" not in {p.path for p in retriever(world).search("年假几天")}
    with pytest.raises(NotFound, match="nowhere"):
        retriever(world).search("年假几天", "nowhere")


def test_filters_restrict_by_document_path_tag_and_metadata(world: World) -> None:
    ids = world.put(DOCUMENTS)
    tagged = world.put({"hr/补充.md": "年假可以顺延到次年三月。"}, tags=["人事", "2026"])
    search = retriever(world).search
    one = Filters(documents=(ids["食堂.txt"],))
    assert {p.path for p in search("年假几天", filters=one)} == {"食堂.txt"}
    assert {p.path for p in search("年假几天", filters=Filters(path_prefix="hr/"))} == {"hr/补充.md"}
    assert {p.document_id for p in search("年假几天", filters=Filters(tags=("人事",)))} == set(tagged.values())
    assert search("年假几天", filters=Filters(tags=("人事", "没有"))) == []
    assert search("年假几天", filters=Filters(meta={"year": 2026})) == []


def test_filters_by_metadata_and_date_are_exact(world: World) -> None:
    """More documents outside the filter fit the question than either index brings in."""
    world.put({f"无关{n}.md": f"年假几天？年假几天由第{n}号通知规定。" for n in range(80)})
    with world.database.session() as session:
        for version in session.scalars(select(DocumentVersion)):
            version.created_at = datetime(2020, 5, 5, 12)
    dated = {
        "甲.md": {"date": "2024-03-01", "部门": ["人事", "行政"], "级别": 3},
        "乙.md": {"日期": "2024年3月31日", "部门": "财务"},
    }
    for path, meta in dated.items():
        world.put({path: f"{path}说明休假的规定，年假另行通知。"}, meta=meta)

    def paths(**given: object) -> set[str]:
        return {p.path for p in retriever(world).search("年假几天", k=100, filters=Filters(**given))}  # type: ignore[arg-type]

    assert paths(since=date(2024, 3, 1)) == {"甲.md", "乙.md"}
    assert paths(since=date(2024, 3, 2), until=date(2024, 3, 31)) == {"乙.md"}
    assert paths(until=date(2024, 3, 1), documents=("甲.md", "乙.md")) == {"甲.md"}
    assert len(paths(since=date(2020, 5, 5), until=date(2020, 5, 5))) == 80, "no date of their own: when stored"
    assert paths(until=date(2020, 5, 4)) == set()
    assert paths(meta={"部门": "人事"}) == {"甲.md"}
    assert paths(meta={"级别": 3, "部门": "行政"}) == {"甲.md"}
    assert paths(meta={"级别": 4}) == set()
    assert paths(documents=("乙.md", "没有.md")) == {"乙.md"}
    with world.database.session() as session:  # ids of one version need not follow one another
        last = session.scalars(select(Chunk).order_by(Chunk.id.desc())).first()
        assert last is not None
        extra = Chunk(id=last.id + 7, version_id=last.version_id, ordinal=99, char_start=0, char_end=1)
        session.add(extra)
        session.flush()
        admitted = allowed_chunks(session, get_kb(session, "default"), Filters(documents=("乙.md",)))
        assert admitted.tolist() == [last.id, last.id + 7]
        session.rollback()
    with pytest.raises(InvalidInput, match="晚于"):
        Filters(since=date(2024, 1, 2), until=date(2024, 1, 1))
    with pytest.raises(InvalidInput, match="2024-03-01"):
        day("去年")
    assert (day("2024年3月1日"), day("")) == (date(2024, 3, 1), None)


class Choosy(SentenceReader):
    """Finds relevant what it likes, and counts what it is shown."""

    likes = ""
    shown = 0

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]:
        self.shown += len(passages)
        return [1.0 if p.text == self.likes else 0.0 for p in passages]


def test_the_readers_relevance_decides_between_near_equals(world: World) -> None:
    world.put({"乙.md": "年假为五天，见乙表。", "甲.md": "年假为五天，见甲表。", "丙.md": "食堂在一楼。"})
    reader = Choosy()
    plain = retriever(world, reader).search("年假为几天", k=6, rerank=False)
    assert all(p.scores.relevance is None for p in plain)
    reader.likes = plain[1].text
    first, second, *rest = retriever(world, reader).search("年假为几天", k=6)
    assert [first.text, second.text] == [plain[1].text, plain[0].text]
    assert (first.scores.relevance, second.scores.relevance) == (1.0, 0.0)
    assert first.score > second.score >= max((p.score for p in rest), default=0.0)
    assert reader.shown == 2, "what is far from the best is not worth the time"


def test_a_clear_winner_needs_no_relevance(world: World) -> None:
    world.put(DOCUMENTS)
    reader = Choosy()
    assert retriever(world, reader).search("病假工资怎么发", k=6)[0].heading == "病假"
    assert reader.shown == 0


def test_the_same_question_gives_the_same_passages(world: World) -> None:
    world.put(DOCUMENTS)
    search = retriever(world, SentenceReader()).search
    assert search("公章外带要谁批准") == search("公章外带要谁批准")


@pytest.mark.parametrize("question", ["", "  \n ", "问" * 2001])
def test_questions_that_cannot_be_used(world: World, question: str) -> None:
    with pytest.raises(InvalidInput, match="问题"):
        retriever(world).search(question)


@pytest.mark.parametrize("question", ["\ud800年假", "年假\x00几天", "？？？", "🦀", "a" * 500, "%_'\"--"])
def test_odd_questions_do_no_harm(world: World, question: str) -> None:
    world.put(DOCUMENTS)
    retriever(world).search(question)


def test_an_empty_knowledge_base_gives_nothing(world: World) -> None:
    assert retriever(world).search("年假") == []


def piece(start: int, text: str, version: int = 1, chunk: int = 1, score: float = 0.0) -> Passage:
    return Passage(chunk, "d", version, "t", "p", None, f"h{chunk}", start, start + len(text), text, score)


WHOLE = "甲甲甲甲。\n\n乙乙乙乙。丙丙丙丙。"


def test_neighbours_and_overlaps_become_one_passage() -> None:
    a, b, c = piece(0, "甲甲甲甲。", 1, 1), piece(7, "乙乙乙乙。", 1, 2), piece(12, "丙丙丙丙。", 1, 3)
    (joined,) = merge_neighbours([b, a, c], {1: WHOLE})
    assert joined.text == WHOLE
    assert (joined.char_start, joined.char_end, joined.chunk_id) == (0, 17, 2)
    assert joined.heading == "h1"
    (overlap,) = merge_neighbours([piece(0, WHOLE[:9]), piece(7, WHOLE[7:12])], {1: WHOLE})
    assert overlap.text == WHOLE[:12]


def test_what_is_not_merged() -> None:
    a, c = piece(0, "甲甲甲甲。"), piece(12, "丙丙丙丙。", 1, 3)
    assert merge_neighbours([a, c], {1: WHOLE}) == [a, c]  # text between
    b = piece(7, "乙乙乙乙。", 2, 2)
    assert merge_neighbours([a, b], {1: WHOLE, 2: WHOLE}) == [a, b]  # other version
    near = piece(7, "乙乙乙乙。", 1, 2)
    assert merge_neighbours([a, near], {1: WHOLE}, limit=8) == [a, near]  # too long


@given(
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), min_size=1, max_size=8),
    limit=st.integers(1, 60),
)
def test_merging_keeps_text_and_offsets_true(cuts: list[tuple[int, int]], limit: int) -> None:
    text = "一二三四五\n六七八九十 甲乙丙丁" * 4
    shown = [piece(a, text[a : a + n], 1, i) for i, (a, n) in enumerate(cuts)]
    merged = merge_neighbours(shown, {1: text}, limit)
    assert 1 <= len(merged) <= len(shown)
    covered = set()
    for p in merged:
        assert p.text == text[p.char_start : p.char_end]
        covered |= set(range(p.char_start, p.char_end))
    assert all(set(range(p.char_start, p.char_end)) <= covered for p in shown)


def test_one_document_does_not_crowd_out_others_that_are_as_near() -> None:
    def found(chunk: int, document: str, fused: float) -> Passage:
        return Passage(chunk, document, 1, "t", "p", None, "", 0, 1, "甲", fused, Scores(fused=fused))

    shown = [found(1, "a", 1.0), found(2, "a", 0.9), found(3, "a", 0.8), found(4, "b", 0.7), found(5, "c", 0.1)]
    assert [p.chunk_id for p in diverse(shown, 3, limit=2)] == [1, 2, 4, 3, 5]
    assert [p.chunk_id for p in diverse(shown, 4, limit=2)] == [1, 2, 4, 3, 5], "far passages take nobody's place"
    assert diverse(shown, 3, limit=3) == shown
    assert diverse([], 3) == []
