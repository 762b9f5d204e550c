"""From question to answer over a real store and index: cited, refused, chatted, streamed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.answer import Answerer
from rag.errors import InvalidInput, NotFound
from rag.retrieve import Retriever
from rag.types import Answer, Passage, ReaderOutput, Span, Turn
from rag.wire import answer_to_dict
from tests.rag.world import SentenceReader, World

DOCUMENTS = {
    "考勤制度.md": "# 年假\n\n员工连续工作满一年的，每年享受带薪年假五天。\n\n"
    "# 病假\n\n病假须提交医院证明。病假工资按八成发放。",
    "印章规定.md": "# 骑缝章\n\n合同满5页的须加盖骑缝章。\n\n# 外带\n\n外带公章须经总经理书面批准，由两人同行。",
    "星河耳机.txt": "星河耳机的配对方法是长按电源键五秒。\n\n星河耳机的防水等级为IPX4。\n\n星河耳机的保修期为两年。",
    "蓝海音箱.txt": "蓝海音箱的防水等级为IPX7。\n\n蓝海音箱的保修期为一年。",
}


class Odd:
    """A reader that returns what a test tells it to."""

    id = "odd"
    answerable_threshold = 0.5

    def __init__(self, output: ReaderOutput | None = None) -> None:
        self.output = output
        self.reads = 0

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        self.reads += 1
        assert self.output is not None
        relevance = tuple(0.9 for _ in passages)
        o = self.output
        return ReaderOutput(o.text, o.answerable, o.p_answerable, 0.9, relevance, o.spans, (), o.kind)

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]:
        return [0.5] * len(passages)


def answerer(world: World, reader: object | None = None) -> Answerer:
    reader = reader or SentenceReader()
    retriever = Retriever(world.database, world.indexes, world.embedder, reader, world.settings)  # type: ignore[arg-type]
    return Answerer(retriever, reader, world.settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    made.put(DOCUMENTS)
    return made


def check_citations(world: World, answer: Answer) -> None:
    """The promise: every quote is the stored text, and in a copied answer the answer's own characters."""
    for c in answer.citations:
        assert c.quote == world.text(c.version_id)[c.char_start : c.char_end]
        if c.kind == "copied":
            assert answer.answer[c.answer_start : c.answer_end] == c.quote


def test_an_answer_is_cited_into_its_document(world: World) -> None:
    answer = answerer(world).ask("病假工资按几成发放？")
    assert (answer.answerable, answer.reason) == (True, "answered")
    assert answer.answer == "病假工资按八成发放"
    (citation,) = answer.citations
    assert (citation.path, citation.marker, citation.kind) == ("考勤制度.md", 1, "copied")
    check_citations(world, answer)
    assert answer.display.startswith("病假工资按八成发放[1]")
    assert answer.passages[0].scores.relevance is not None
    assert answer.model == "sentences"
    assert answer.generation >= 1
    assert set(answer.timings_ms) == {"rewrite", "retrieve", "rerank", "read", "cite", "total"}
    assert answer.timings_ms["total"] >= sum(v for k, v in answer.timings_ms.items() if k != "total") * 0.99


def test_what_the_documents_do_not_say_is_refused_with_the_nearest_passages(world: World) -> None:
    answer = answerer(world).ask("公司年会在哪个城市举办")
    assert not answer.answerable
    assert answer.answer.startswith("资料中没有找到")
    assert answer.reason in ("not_answered", "nothing_relevant")
    assert answer.citations == ()
    assert answer.passages
    assert answer.passages[0].title in answer.display


def test_the_threshold_can_be_set(tmp_path: Path) -> None:
    for threshold, answerable in ((0.0, True), (1.0, False)):
        world = World(tmp_path / str(threshold), answerable_threshold=threshold)
        world.put(DOCUMENTS)
        assert answerer(world).ask("病假工资发放的比例").answerable is answerable


def test_an_empty_knowledge_base_says_what_to_do(tmp_path: Path) -> None:
    answer = answerer(World(tmp_path)).ask("年假几天")
    assert (answer.reason, answer.answerable) == ("empty_index", False)
    assert "chatgglm ingest" in answer.answer


def test_a_knowledge_base_that_was_emptied_refuses(tmp_path: Path) -> None:
    world = World(tmp_path)
    for document_id in world.put({"a.md": "年假五天。"}).values():
        world.delete(document_id)
    answer = answerer(world).ask("年假几天")
    assert not answer.answerable
    assert answer.passages == ()


@pytest.mark.parametrize("question", ["你好", "年假几天"])
def test_an_unknown_knowledge_base_is_an_error_for_every_question(world: World, question: str) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        answerer(world).ask(question, "nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        answerer(world).stream(question, "nowhere")


@pytest.mark.parametrize("question", ["", " \n", "问" * 2001])
def test_questions_that_cannot_be_used_are_errors(world: World, question: str) -> None:
    with pytest.raises(InvalidInput, match="问题"):
        answerer(world).ask(question)


SPAN = Span(0, 2)


@pytest.mark.parametrize(
    "output",
    [
        ReaderOutput("编造", True, 1.0, 1.0, (), ((0, SPAN, SPAN),)),  # not what the passage says
        ReaderOutput("编造的话", True, 1.0, 1.0, (), ()),  # without any span
        ReaderOutput("编造", True, 1.0, 1.0, (), ((0, Span(9000, 9002), SPAN),)),  # outside the passage
        ReaderOutput("", True, 1.0, 1.0, (), ()),  # nothing
        ReaderOutput("编造", True, 1.0, 1.0, (), (), (), "supported"),  # nothing supports it
    ],
)
def test_an_answer_that_cannot_be_verified_is_a_refusal(world: World, output: ReaderOutput) -> None:
    answer = answerer(world, Odd(output)).ask("年假有几天？")
    assert (answer.answerable, answer.reason, answer.citations) == (False, "not_answered", ())
    assert answer.answer.startswith("资料中没有找到")
    assert "编造" not in json.dumps(answer_to_dict(answer), ensure_ascii=False)


def test_a_mostly_invented_answer_is_a_refusal_although_a_part_is_true(world: World) -> None:
    class Mixed(Odd):
        def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
            text = passages[0].text[:2] + "以及完全没有依据的一大段话"
            self.output = ReaderOutput(text, True, 1.0, 1.0, (), ((0, SPAN, SPAN),))
            return super().read(question, passages, history)

    assert not answerer(world, Mixed()).ask("年假有几天？").answerable


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_citation_can_be_forged(world: World, data: st.DataObject) -> None:
    """Whatever a reader claims, every citation that comes out is the stored text."""

    class Liar(Odd):
        def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
            spans = []
            text = ""
            for _ in range(data.draw(st.integers(0, 4))):
                index = data.draw(st.integers(0, len(passages) - 1))
                start = data.draw(st.integers(0, len(passages[index].text) + 3))
                end = start + data.draw(st.integers(1, 9))
                quote = passages[index].text[start:end]
                if data.draw(st.booleans()):
                    quote = data.draw(st.text(min_size=1, max_size=9))
                quote = quote or "空"
                spans.append((index, Span(start, end), Span(len(text), len(text) + len(quote))))
                text += quote
            kind = data.draw(st.sampled_from(["copied", "supported"]))
            self.output = ReaderOutput(text, True, 1.0, 1.0, (), tuple(spans), (), kind)
            return super().read(question, passages, history)

    answer = answerer(world, Liar()).ask("年假有几天？")
    check_citations(world, answer)
    assert answer.answerable == bool(answer.citations)


@pytest.mark.parametrize(
    ("history", "question", "expected"),
    [
        (("星河耳机怎么配对？", "长按电源键五秒。"), "它防水吗？", "IPX4"),
        (("蓝海音箱的保修期多久？", "一年。"), "防水等级呢？", "IPX7"),
        (("星河耳机防水等级是多少？", "IPX4。", "谢谢", "不客气。"), "那保修期呢", "两年"),
        (("蓝海音箱防水吗？", "IPX7。"), "保修期多久", "一年"),
    ],
)
def test_followups_find_what_is_talked_about(
    world: World, history: tuple[str, ...], question: str, expected: str
) -> None:
    turns = [Turn("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(history)]
    answer = answerer(world).ask(question, history=turns)
    assert expected in answer.answer
    assert answer.question == question
    assert answer.standalone_question != question


class Pointing(Odd):
    """Answers with the beginning of a passage, the first's; for ``elsewhere`` of another document."""

    def __init__(self, elsewhere: str) -> None:
        super().__init__()
        self.elsewhere = elsewhere
        self.asked: list[str] = []

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        self.asked.append(question)
        others = [i for i, p in enumerate(passages) if p.document_id != passages[0].document_id]
        where = others[0] if question == self.elsewhere else 0
        text, relevance = passages[where].text[:4], tuple(0.9 for _ in passages)
        return ReaderOutput(text, True, 0.9, 0.9, relevance, ((where, Span(0, 4), Span(0, 4)),), kind="copied")


@pytest.mark.parametrize(("elsewhere", "reads"), [("", 1), ("保修期多久", 2)])
def test_a_follow_up_is_read_as_typed_where_that_answers_from_the_first_document(
    world: World, elsewhere: str, reads: int
) -> None:
    said = ("蓝海音箱防水吗？", "IPX7。", "星河耳机防水吗？", "IPX4。")
    talk = [Turn("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(said)]
    reader = Pointing(elsewhere)
    answer = answerer(world, reader).ask("保修期多久", history=talk)
    assert reader.asked == ["保修期多久", answer.standalone_question][:reads]
    assert "星河耳机" in answer.standalone_question
    assert {c.document_id for c in answer.citations} == {answer.passages[0].document_id}
    check_citations(world, answer)


def test_history_never_makes_a_complete_question_worse(world: World) -> None:
    talk = [Turn("user", "蓝海音箱的防水等级是多少？"), Turn("assistant", "IPX7")]
    for question in ("外带公章须经谁书面批准？", "病假工资按几成发放？", "星河耳机的配对方法是什么？"):
        alone, within = answerer(world).ask(question), answerer(world).ask(question, history=talk)
        assert within.answer == alone.answer
        assert within.standalone_question == question


@pytest.mark.parametrize(
    ("message", "part"),
    [("你好", "ChatGGLM"), ("谢谢！", "不客气"), ("你是谁？", "ChatGGLM"), ("你能做什么", "文档"), ("再见", "再见")],
)
def test_small_talk_is_answered_without_a_search(tmp_path: Path, message: str, part: str) -> None:
    reader = Odd()
    answer = answerer(World(tmp_path), reader).ask(message)
    assert (answer.reason, answer.answerable, answer.passages, answer.citations) == ("chat", True, (), ())
    assert part in answer.answer == answer.display
    assert answer.timings_ms["retrieve"] == 0
    assert reader.reads == 0


def test_a_chatting_reader_is_heard_if_it_makes_sense(world: World) -> None:
    class Chatting(SentenceReader):
        reply = "您好，很高兴为您服务。"

        def chat(self, message: str, history: Sequence[Turn] = ()) -> str:
            return self.reply

    reader = Chatting()
    assert answerer(world, reader).ask("你好").answer == "您好，很高兴为您服务。"
    reader.reply = "的的的的的的的的"
    assert "ChatGGLM" in answerer(world, reader).ask("你好").answer
    assert answerer(world, reader).ask("你好，病假工资按几成发放？").reason == "answered"


def test_a_greeting_before_a_question_does_not_swallow_it(world: World) -> None:
    answer = answerer(world).ask("您好，请问合同满几页须加盖骑缝章？")
    assert "骑缝章" in answer.answer
    assert answer.reason == "answered"


def test_the_stream_says_the_same_as_the_answer(world: World) -> None:
    events = list(answerer(world).stream("病假工资按几成发放？"))
    kinds = [e["type"] for e in events]
    assert kinds[0] == "passages"
    assert kinds[-1] == "done"
    document = events[-1]["answer"]
    assert "".join(e["text"] for e in events if e["type"] == "token") == document["display"]
    assert [e["citation"] for e in events if e["type"] == "citation"] == document["citations"]
    json.dumps(events, ensure_ascii=False, allow_nan=False)


def test_small_talk_and_refusals_stream_too(world: World) -> None:
    for question in ("你好", "公司年会在哪个城市举办"):
        events = list(answerer(world).stream(question))
        assert events[-1]["type"] == "done"
        assert "".join(e["text"] for e in events if e["type"] == "token") == events[-1]["answer"]["display"]


def test_the_document_of_an_answer_has_the_promised_keys(world: World) -> None:
    document = answer_to_dict(answerer(world).ask("病假工资按几成发放？"))
    assert set(document) >= {
        "question",
        "standalone_question",
        "answer",
        "answerable",
        "p_answerable",
        "reason",
        "citations",
        "passages",
        "model",
        "generation",
        "run_id",
        "timings_ms",
        "display",
    }
    assert set(document["citations"][0]) >= {
        "marker",
        "document_id",
        "title",
        "path",
        "page",
        "char_start",
        "char_end",
        "quote",
        "answer_start",
        "answer_end",
        "kind",
        "score",
    }
    assert set(document["passages"][0]["scores"]) == {"lexical", "dense", "fused", "relevance"}


def test_runs_have_names_of_their_own_and_are_otherwise_the_same(world: World) -> None:
    first, second = (answer_to_dict(answerer(world).ask("病假工资按几成发放？")) for _ in range(2))
    assert first.pop("run_id") != second.pop("run_id")
    first.pop("timings_ms"), second.pop("timings_ms")
    assert first == second


def test_disagreeing_documents_are_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"甲.md": "新员工试用期为三个月。", "乙.md": "新员工试用期为六个月。"})

    class Two(SentenceReader):
        def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
            at = passages[0].text.index("月") - 2
            span = Span(at, at + 3)
            return ReaderOutput(
                passages[0].text[at : at + 3], True, 0.9, 0.9, (0.9, 0.9), ((0, span, Span(0, 3)),), ((0.8, 1, span),)
            )

    answer = answerer(world, Two()).ask("新员工试用期多久？")
    assert answer.reason == "sources_disagree"
    assert set(answer.answer.split("；")) == {"三个月", "六个月"}
    assert {c.path for c in answer.citations} == {"甲.md", "乙.md"}
    assert "不一致" in answer.display
    check_citations(world, answer)


def test_only_passages_near_the_best_are_read_and_the_others_still_shown(world: World) -> None:
    class Counting(SentenceReader):
        read_passages = 0

        def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
            self.read_passages = len(passages)
            return super().read(question, passages, history)

    reader = Counting()
    answer = answerer(world, reader).ask("病假工资按几成发放？")
    assert 1 <= reader.read_passages < len(answer.passages) <= world.settings.top_k
    best = max(p.scores.fused for p in answer.passages)
    for place, passage in enumerate(answer.passages):
        was_read = place < reader.read_passages
        assert (passage.scores.fused >= 0.5 * best) is was_read
        assert (passage.scores.relevance is not None) is was_read
