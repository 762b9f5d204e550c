"""Both indexes' results made one ranking: shares of the best, exact cosines, sentences that cover the question."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.fusion import DENSE_WEIGHT, FOCUS_WEIGHT, Focus, Sentences, fuse, order, search_both, sharpen
from rag.index.lexical import Bm25Index
from rag.index.terms import normal_form, term_keys, term_places
from rag.index.vectors import FaissStore
from tests.rag.world import BigramEmbedder


def test_fusion_weighs_words_and_meaning() -> None:
    fused = fuse([(1.0, {1: 8.0, 2: 6.0}, {2: 0.9, 3: 0.45})])
    whole = 1 + DENSE_WEIGHT
    assert order(fused) == [2, 1, 3]
    assert fused[1] == pytest.approx(1 / whole)
    assert fused[2] == pytest.approx((0.75 + DENSE_WEIGHT) / whole)
    assert fused[3] == pytest.approx(DENSE_WEIGHT / 2 / whole)
    assert fuse([(2.0, {5: 3.0}, {5: 1.0}), (1.0, {5: 9.0}, {5: 1.0})])[5] == pytest.approx(1.0)
    assert fuse([]) == {}
    assert fuse([(1.0, {}, {4: -0.2})]) == {4: 0.0}


found = st.dictionaries(st.integers(0, 9), st.floats(0.0, 50.0), max_size=6)
near = st.dictionaries(st.integers(0, 9), st.floats(-1.0, 1.0), max_size=6)


@settings(deadline=None)
@given(
    searches=st.lists(st.tuples(st.floats(0.1, 2), found, near), max_size=4),
    texts=st.dictionaries(st.integers(0, 9), st.tuples(st.text("甲乙a1"), st.text("甲乙a1。")), max_size=4),
)
def test_scores_lie_between_0_and_1(
    searches: list[tuple[float, dict[int, float], dict[int, float]]], texts: dict[int, tuple[str, str]]
) -> None:
    fused = fuse(searches)
    assert set(fused) == {i for _, words, meaning in searches for i in words.keys() | meaning.keys()}
    index = Bm25Index()
    index.add([0, 1], ["甲乙", "a1"])
    asked = [(weight, Focus.of("甲乙a1", index)) for weight, _, _ in searches]
    sharp = sharpen(fused, asked, {i: t for i, t in texts.items() if i in fused})
    assert set(sharp) == set(fused)
    assert all(0 <= score <= 1 + 1e-6 for score in [*fused.values(), *sharp.values()])


def test_what_only_the_words_found_has_its_cosine_too() -> None:
    embedder = BigramEmbedder()
    texts = ["年假为五天", "病假按八成发放", "公章外带须批准", "食堂在一楼"]
    lexical, vectors = Bm25Index(), FaissStore(embedder.dim)
    lexical.add(range(4), texts)
    rows = embedder.encode_passages(texts)
    vectors.add(np.arange(3), rows[:3])  # the last one has none
    query = embedder.encode_queries(["公章"])[0]
    words, meaning, exhausted = search_both("年假、病假、公章、食堂", query, lexical, vectors, 1)
    assert (len(words), next(iter(meaning)), exhausted) == (1, 2, False)
    words, meaning, exhausted = search_both("病假和食堂", query, lexical, vectors, 5)
    assert exhausted
    assert 3 in words
    assert 3 not in meaning
    only = next(iter(search_both("病假按八成", query, lexical, vectors, 1)[0]))
    assert search_both("病假按八成", query, lexical, vectors, 1)[1][only] == pytest.approx(float(rows[only] @ query))


def focus(question: str, *texts: str) -> Focus:
    index = Bm25Index()
    index.add(range(len(texts)), texts)
    return Focus.of(question, index)


def test_a_sentence_that_says_it_all_comes_before_words_here_and_there() -> None:
    together, apart = "食堂在一楼。病假工资按八成发放。", "病假须提交证明。工资在十五日发放，奖金另计。"
    asked = focus("病假工资怎么发放", together, apart)

    def covered(context: str, text: str) -> float:
        return float(asked(Sentences([(context, text)]))[0])

    assert covered("", together) > covered("", apart)
    assert covered("", apart) > covered("", "食堂在一楼。")
    assert covered("病假", "工资在十五日发放。") > covered("", "工资在十五日发放。"), "titles count for each sentence"
    assert covered("病假。工资\n发放", "") >= covered("病假", "工资。发放")
    assert covered("病假工资发放", "") == pytest.approx(covered("", "病假工资发放"))
    pairs = [("", apart), ("病假", "工资在十五日发放。"), ("", ""), ("", together)]
    assert asked(Sentences(pairs)).tolist() == pytest.approx([covered(*pair) for pair in pairs])
    assert asked(Sentences([])).tolist() == []
    assert focus("？？", together)(Sentences([("", together)])).tolist() == [0.0]
    nowhere = focus("没有的话", "甲")
    assert nowhere(Sentences([("", "没有的话")])).tolist() == [0.0], "what no passage holds is worth nothing"


def test_focus_lifts_only_what_was_looked_at() -> None:
    texts = {1: ("", "病假须提交证明。工资在十五日发放。"), 2: ("", "病假工资按八成发放。")}
    asked = [(1.0, focus("病假工资", *(text for _, text in texts.values())))]
    sharp = sharpen({1: 0.8, 2: 0.8, 3: 0.9}, asked, texts)
    base = (1 + DENSE_WEIGHT) / (1 + DENSE_WEIGHT + FOCUS_WEIGHT)
    assert order(sharp) == [2, 1, 3]
    assert sharp[3] == pytest.approx(0.9 * base)


@given(st.text("年假五天二〇二四SN-2024-A 3.5万%。，病", max_size=40))
def test_places_are_those_of_the_terms(text: str) -> None:
    folded = normal_form(text)
    keys, places = term_places(folded)
    assert sorted(keys.tolist()) == sorted(term_keys(text).tolist())
    assert len(keys) == len(places)
    for key, place in zip(keys.tolist(), places.tolist(), strict=True):
        assert 0 <= place < len(folded)
        if key < 1 << 21:
            assert ord(folded[place]) == key
