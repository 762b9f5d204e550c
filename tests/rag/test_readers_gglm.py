"""Our own generator behind the reader port: a tiny one with random weights, so only form is judged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gglm import weights
from gglm.errors import WeightsError
from gglm.tokenizer import train as train_tokenizer
from gglm.types import Source
from rag.answer import Answerer
from rag.readers import load_reader
from rag.readers.gglm import GGLMReader
from rag.retrieve import Retriever
from rag.service import Service
from rag.settings import Settings
from rag.types import Passage, Turn
from tests.gglm.conftest import PASSAGES, QUESTIONS, TITLES, tiny
from tests.rag.world import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder as training saves it."""
    texts = [
        *PASSAGES,
        *TITLES,
        *(q for q, _, _ in QUESTIONS),
        "，。：；“”（）！？0123456789 abcdefghijklmnopqrstuvwxyz",
    ]
    made = tmp_path_factory.mktemp("gglm")
    tokenizer = train_tokenizer(texts * 10, made / "tokenizer.model", latin=46)
    settings = weights.ReaderSettings(overlap=32, max_answer_tokens=24)
    return weights.save(
        made / "tiny", tiny(tokenizer), tokenizer.model, "gglm-tiny-test", reader=settings, tasks=("问答",)
    )


@pytest.fixture(scope="module")
def reader(folder: Path) -> GGLMReader:
    loaded = load_reader(Settings(reader="gglm", reader_weights=folder))
    assert isinstance(loaded, GGLMReader)
    return loaded


def test_who_translates(folder: Path, tmp_path: Path) -> None:
    """Weights that can do it themselves do; else the shipped ones, unless others are named."""
    shipped = Service(Settings(home=tmp_path, reader_weights=folder))
    assert shipped.translator().id.startswith("gglm-small-zh-en-")
    assert shipped.translator() is shipped.translator()
    assert shipped.translator("en-zh") is shipped.engine
    named = Service(Settings(home=tmp_path, translator_weights=folder))
    assert named.translator().id == "gglm-tiny-test"
    able = Path(shutil.copytree(folder, tmp_path / "able"))
    weights.update_config(able, tasks=["翻译"])
    own = Service(Settings(home=tmp_path, reader_weights=able))
    assert own.translator() is own.engine


def passage(text: str, number: int = 1) -> Passage:
    return Passage(number, f"d{number}", number, f"文件{number}", f"{number}.txt", None, "第一章", 0, len(text), text)


def test_spans_are_characters_of_the_passages(reader: GGLMReader) -> None:
    shown = [passage(text, i) for i, text in enumerate([*PASSAGES, PASSAGES[0] * 4])]
    output = reader.read(QUESTIONS[0][0], shown)
    assert output.text
    assert output.kind == "copied"
    for index, source, span in output.spans:
        assert shown[index].text[source.start : source.end] == output.text[span.start : span.end]
    assert "".join(output.text[s.start : s.end] for _, _, s in output.spans) == output.text
    assert len(output.relevance) == len(shown)
    assert all(0 <= r <= 1 for r in output.relevance)
    assert 0 <= output.p_answerable <= 1
    for likelihood, index, source in output.alternatives:
        assert 0 < likelihood <= 1
        assert shown[index].text[source.start : source.end]
        assert (index, source) not in [(i, s) for i, s, _ in output.spans]
    assert output.relevance == pytest.approx(tuple(reader.relevance(QUESTIONS[0][0], shown)))


def test_a_question_for_a_figure_is_answered_by_one_or_believed_less(reader: GGLMReader) -> None:
    question = "净水器多少钱？"
    without, figure = passage("本手册介绍净水器的使用。滤芯不在保修之列。"), passage("净水器售价300元。")
    sources = [Source(without.text, f"{without.title} › {without.heading}")]
    (evidence,) = reader.engine.evidence([(question, sources)])
    output = reader.read(question, [without])
    assert output.text == evidence.decoded.candidates[0].text
    assert evidence.belief == 0.5
    assert output.p_answerable == pytest.approx(0.5 * reader.engine.p_answerable(replace(evidence, belief=1.0)))
    assert "300元" in reader.read(question, [figure]).text


@pytest.mark.parametrize("text", [" ", "\n\n", "😀𠮷", "a" * 3000, "繁體字與全形ＡＢＣ", "\u200b", "。"])
def test_odd_passages_and_questions_do_no_harm(reader: GGLMReader, text: str) -> None:
    output = reader.read("保修多久？", [passage(text), passage(PASSAGES[0], 2)])
    assert len(output.relevance) == 2
    reader.read(text, [passage(PASSAGES[0])])


def test_nothing_to_read(reader: GGLMReader) -> None:
    output = reader.read("保修多久？", [])
    assert (output.answerable, output.text, output.relevance) == (False, "", ())
    assert reader.relevance("保修多久？", []) == []


def test_tasks_that_were_not_trained_are_left_to_the_rules(reader: GGLMReader) -> None:
    assert reader.chat("你好") == ""
    assert reader.rewrite("它呢？", [Turn("user", "净水器保修多久？")]) == "它呢？"
    assert reader.id == "gglm-tiny-test"


def test_the_whole_chain_with_our_reader_cites_what_it_says(reader: GGLMReader, tmp_path: Path) -> None:
    world = World(tmp_path, answerable_threshold=0.0)
    world.put({f"{title or '说明'}.md": text for title, text in zip(TITLES, PASSAGES, strict=True)})
    retriever = Retriever(world.database, world.indexes, world.embedder, reader, world.settings)
    answerer = Answerer(retriever, reader, world.settings)
    for question, _, _ in QUESTIONS:
        answer = answerer.ask(question)
        assert answer.answerable
        assert answer.model == "gglm-tiny-test"
        for c in answer.citations:
            assert c.quote == world.text(c.version_id)[c.char_start : c.char_end]
            assert c.quote == answer.answer[c.answer_start : c.answer_end]
    refused = Answerer(retriever, reader, world.settings.model_copy(update={"answerable_threshold": 1.0}))
    assert refused.ask(QUESTIONS[0][0]).reason in ("not_answered", "nothing_relevant")


def test_missing_weights_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        load_reader(Settings(reader_weights=tmp_path / "nothing"))
