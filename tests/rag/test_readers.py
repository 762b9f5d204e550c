"""Readers other than our own: citations by verified matching, outside servers, transformers models."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglm.errors import WeightsError
from rag.errors import InvalidInput
from rag.readers import load_reader
from rag.readers.matching import overlap, support, supported_output
from rag.readers.openai import OpenAIReader, ReaderUnavailable
from rag.settings import Settings
from rag.types import Passage, Span, Turn

LEAVE = "员工连续工作满一年的，每年享受带薪年假五天。满十年的，年假十天。"
SEAL = "合同满 5 页的须加盖骑缝章，由行政部保管印章。"


def passage(text: str, number: int = 1) -> Passage:
    return Passage(number, f"d{number}", number, f"文件{number}", f"{number}.txt", None, "", 0, len(text), text)


PASSAGES = [passage(SEAL, 1), passage(LEAVE, 2)]


def quotes(answer: str, passages: list[Passage]) -> list[tuple[str, str]]:
    """(quote, stretch of the answer) of each supported sentence."""
    return [(passages[i].text[s.start : s.end], answer[a.start : a.end]) for i, s, a in support(answer, passages)]


def test_a_verbatim_answer_is_supported_by_exactly_itself() -> None:
    assert quotes("带薪年假五天", PASSAGES) == [("带薪年假五天", "带薪年假五天")]


def test_a_paraphrase_is_supported_by_the_sentence_that_says_it() -> None:
    answer = "员工满十年的，年假有十天。"
    assert quotes(answer, PASSAGES) == [("满十年的，年假十天。", answer)]


def test_a_wrong_number_is_never_supported() -> None:
    assert support("合同满 8 页的须加盖骑缝章", PASSAGES) == []
    assert len(support("合同满 5 页的要加盖骑缝章", PASSAGES)) == 1


def test_invented_sentences_stay_uncited() -> None:
    answer = "合同满 5 页的须加盖骑缝章。另外公司提供免费午餐和班车。"
    assert [a for _, a in quotes(answer, PASSAGES)] == ["合同满 5 页的须加盖骑缝章。"]
    output = supported_output("骑缝章", answer, PASSAGES)
    assert output.kind == "supported"
    assert 0.4 < output.p_answerable < 0.75
    assert output.answerable == (output.p_answerable >= 0.5)
    mostly = supported_output("骑缝章", answer + "食堂每天供应三餐，周末也开放，家属可以一起来用餐。", PASSAGES)
    assert 0 < mostly.p_answerable < 0.5
    assert not mostly.answerable


@given(answer=st.text(max_size=80), text=st.text(min_size=1, max_size=120))
def test_matching_gives_real_spans_of_any_text(answer: str, text: str) -> None:
    shown = passage(text)
    for index, source, claim in support(answer, [shown]):
        assert index == 0
        assert text[source.start : source.end]
        assert 0 <= claim.start < claim.end <= len(answer)


def test_overlap_counts_the_terms_of_the_question() -> None:
    assert overlap("骑缝章", SEAL) == 1.0
    assert overlap("骑缝章", LEAVE) == 0.0
    assert overlap("？", SEAL) == 0.0


class Server:
    """A small server of the chat API, on this machine, that answers what it is told."""

    def __init__(self) -> None:
        self.reply: Any = "五天"
        self.status = 200
        self.requests: list[dict[str, Any]] = []
        self.authorization: str | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append(json.loads(body))
                outer.authorization = self.headers.get("Authorization")
                message = {"choices": [{"message": {"role": "assistant", "content": outer.reply}}]}
                payload = json.dumps(message if self.path == "/v1/chat/completions" else {}).encode()
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def test_an_outside_model_is_asked_and_cited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATGGLM_READER_API_KEY", "secret")
    reader = load_reader(Settings(reader=f"openai:some/model@{server.url}"))
    server.reply = "带薪年假五天。"
    output = reader.read("年假几天？", PASSAGES, [Turn("user", "你好"), Turn("assistant", "您好")])
    assert (output.kind, output.answerable, output.p_answerable) == ("supported", True, 1.0)
    index, source, _ = output.spans[0]
    assert PASSAGES[index].text[source.start : source.end] == "带薪年假五天"
    assert server.authorization == "Bearer secret"
    sent = server.requests[0]
    assert sent["model"] == "some/model"
    assert [m["role"] for m in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert LEAVE in sent["messages"][-1]["content"]
    assert reader.id == "openai:some/model"


@pytest.mark.parametrize("reply", ["资料中没有找到。", "", None, "公司有三百名员工和两座工厂"])
def test_refusals_and_unsupported_answers_of_an_outside_model(server: Server, reply: str | None) -> None:
    server.reply = reply
    output = OpenAIReader("m", server.url).read("年假几天？", PASSAGES)
    assert not output.answerable
    assert output.p_answerable == 0.0
    assert output.spans == ()


def test_failures_of_an_outside_model_say_what_to_do(server: Server) -> None:
    server.status = 401
    with pytest.raises(ReaderUnavailable, match="CHATGGLM_READER_API_KEY"):
        OpenAIReader("m", server.url).read("问", PASSAGES)
    server.status = 200
    with pytest.raises(ReaderUnavailable, match="格式"):
        OpenAIReader("m", server.url + "/other").read("问", PASSAGES)
    with pytest.raises(ReaderUnavailable, match="连不上"):
        OpenAIReader("m", "http://127.0.0.1:9/v1", timeout=2).read("问", PASSAGES)


@pytest.mark.parametrize("name", ["openai:model", "openai:@http://x", "openai:m@localhost", "hf:", "gpt", ""])
def test_a_setting_that_names_no_reader_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="CHATGGLM_READER"):
        load_reader(Settings(reader=name))


def save_tokenizer(folder: Path, limit: int) -> int:
    """A character tokenizer in the standard format; its vocabulary size."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    chars = sorted(set(LEAVE + SEAL + "年假几天？问题：答案资料【】0123456789"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *chars]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=limit,
    )
    fast.save_pretrained(folder)
    return len(words)


def test_an_extractive_transformers_model_reads_long_passages(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    size = save_tokenizer(tmp_path, 64)
    config = BertConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    BertForQuestionAnswering(config).save_pretrained(tmp_path)
    reader = load_reader(Settings(reader=f"hf:{tmp_path}"))
    shown = [passage(LEAVE * 6, 1), passage(SEAL, 2)]
    output = reader.read("年假几天？", shown)
    (index, source, claim) = output.spans[0]
    assert shown[index].text[source.start : source.end] == output.text
    assert claim == Span(0, len(output.text))
    assert output.kind == "supported"
    assert len(output.relevance) == 2
    assert 0 <= output.p_answerable <= 1
    assert reader.read("年假几天？", []).answerable is False


def test_a_generative_transformers_model_is_matched_not_trusted(tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = save_tokenizer(tmp_path, 256)
    config = GPT2Config(
        vocab_size=size, n_positions=256, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    reader = load_reader(Settings(reader=f"hf:{tmp_path}"))
    output = reader.read("年假几天？", PASSAGES)
    assert output.kind == "supported"
    assert output.answerable == bool(output.spans)
    for index, source, claim in output.spans:
        assert source.end <= len(PASSAGES[index].text)
        assert claim.end <= len(output.text)


def test_a_transformers_model_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="Cannot load hf:"):
        load_reader(Settings(reader=f"hf:{tmp_path / 'nothing'}"))
