"""The official `openai` client against a real server on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest

from rag.service import Service

QUESTION = "年假有几天？"


@pytest.fixture
def sdk(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="any", max_retries=0, timeout=20) as client:
        yield client


def test_models(sdk: openai.OpenAI) -> None:
    models = list(sdk.models.list())
    assert [model.id for model in models] == ["chatgglm", "chatgglm/default"]
    assert all(model.object == "model" and model.owned_by == "chatgglm" for model in models)
    assert 1_600_000_000 < models[0].created <= time.time() + 1
    assert sdk.models.retrieve("chatgglm/default").id == "chatgglm/default"
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.models.retrieve("gpt-4o")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize("model", ["chatgglm", "chatgglm/default"])
def test_a_completion(sdk: openai.OpenAI, service: Service, model: str) -> None:
    completion = sdk.chat.completions.create(
        model=model,
        messages=[
            {"role": "system", "content": "你是助手。"},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ],
        temperature=0.3,
        max_tokens=100,
        user="someone",
    )
    assert completion.object == "chat.completion"
    assert completion.model == model
    assert abs(completion.created - time.time()) < 60
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    assert choice.message.role == "assistant"
    content = choice.message.content
    assert content == service.answerer.ask(QUESTION).display
    assert "十五天" in content
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > 3
    assert choice.message.annotations
    for annotation in choice.message.annotations:
        cited = annotation.url_citation
        assert 0 <= cited.start_index < cited.end_index <= len(content)
        page = httpx.get(cited.url)
        assert page.status_code == 200
    citations = choice.message.model_extra["context"]["citations"]  # type: ignore[index]
    assert citations[0]["quote"] in content


def test_history_comes_from_the_messages(sdk: openai.OpenAI) -> None:
    completion = sdk.chat.completions.create(
        model="chatgglm",
        messages=[
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "十五天"},
            {"role": "user", "content": "那病假呢？"},
        ],
    )
    context = completion.choices[0].message.model_extra["context"]  # type: ignore[index]
    assert context["standalone_question"] != "那病假呢？"


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream(sdk: openai.OpenAI, service: Service, usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if usage else {}
    messages = [{"role": "user", "content": QUESTION}]
    chunks = list(sdk.chat.completions.create(model="chatgglm", messages=messages, stream=True, **options))  # type: ignore[call-overload]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == service.answerer.ask(QUESTION).display
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    if usage:
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens > 3
        assert all(chunk.usage is None for chunk in chunks[:-1])
    else:
        assert chunks[-1].choices
        assert all(chunk.usage is None for chunk in chunks)


def test_errors_become_the_clients_own(sdk: openai.OpenAI) -> None:
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.chat.completions.create(model="chatgglm/nothing", messages=messages)
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError) as several:
        sdk.chat.completions.create(model="chatgglm", messages=messages, n=2)
    assert several.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(model="chatgglm", messages=[])
    with pytest.raises(openai.BadRequestError, match="太长"):
        sdk.chat.completions.create(model="chatgglm", messages=[{"role": "user", "content": "问" * 3000}])


def test_an_error_within_a_stream(sdk: openai.OpenAI, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service.reader, "read", broken)
    with pytest.raises(openai.APIError) as failure:
        list(
            sdk.chat.completions.create(model="chatgglm", messages=[{"role": "user", "content": QUESTION}], stream=True)
        )
    assert "secret" not in str(failure.value)


def test_a_wrong_key_is_an_authentication_error(sdk: openai.OpenAI, service: Service) -> None:
    from api.auth import create_key

    with service.database.session() as session:
        _, key = create_key(session, "test")
    with pytest.raises(openai.AuthenticationError) as refused:
        sdk.models.list()
    assert refused.value.code == "invalid_api_key"
    assert len(list(sdk.with_options(api_key=key).models.list())) == 2


def test_embeddings(sdk: openai.OpenAI, service: Service) -> None:
    texts = ["年假十五天", "病假"]
    made = sdk.embeddings.create(model="bigrams", input=texts)  # the client asks for base64 by itself
    assert [row.index for row in made.data] == [0, 1]
    expected = service.embedder.encode_passages(texts)
    np.testing.assert_allclose([row.embedding for row in made.data], expected, atol=1e-6)
    plain = sdk.embeddings.create(model="bigrams", input="年假十五天", encoding_format="float")
    np.testing.assert_allclose(plain.data[0].embedding, expected[0], atol=1e-6)
    assert made.usage.total_tokens == made.usage.prompt_tokens == 7
    for wrong in ([1, 2, 3], [[1, 2]], "", [""]):
        with pytest.raises(openai.BadRequestError):
            sdk.embeddings.create(model="bigrams", input=wrong)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        sdk.embeddings.create(model="bigrams", input="x", dimensions=7)
    with pytest.raises(openai.NotFoundError):
        sdk.embeddings.create(model="text-embedding-3-small", input="x")
