"""OpenAI's client, unmodified except for its address and key, completes, streams, and is cut at the cap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.late import Library
from tests.loop.rig import Rig, Sold, rig

openai = Library("openai")

QUESTION: Any = [{"role": "user", "content": "How long is a piece of string?"}]


def client_of(loop: Rig, who: Sold) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{loop.url}/v1", api_key=who.key, max_retries=0)


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share, each with a customer of its own."""
    with rig(*shared, model_aliases=("gpt-4o",)) as running:
        yield running


@pytest.fixture
def capped(loop: Rig) -> openai.OpenAI:
    """A client whose conversations are capped at 20 tokens."""
    loop.tier("small", conversation_tokens_max=20, price_nanousd=1_000)
    return client_of(loop, loop.customer("small"))


def test_it_completes(loop: Rig, capped: openai.OpenAI) -> None:
    answer = capped.chat.completions.with_raw_response.create(model="aligned-1", messages=QUESTION, max_tokens=3)
    completion = answer.parse()

    assert completion.object == "chat.completion"
    assert completion.choices[0].message.content
    assert completion.usage is not None
    assert completion.usage.completion_tokens <= 3
    assert answer.headers["x-tokencap-cap"] == "3"
    assert answer.headers["x-tokencap-tier"] == "small"
    assert answer.headers["x-tokencap-charge-nanousd"] == "1000"


def test_it_streams(loop: Rig) -> None:
    loop.tier("open")
    stream = client_of(loop, loop.customer("open")).chat.completions.create(
        model="gpt-4o", messages=QUESTION, stream=True
    )
    chunks = list(stream)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.model for chunk in chunks} == {"gpt-4o"}, "answers carry the caller's name"
    assert all(chunk.usage is None for chunk in chunks), "usage is sent on request only"


def test_usage_that_was_asked_for_carries_the_charge(loop: Rig, capped: openai.OpenAI) -> None:
    *_, last = capped.chat.completions.create(
        model="aligned-1", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )

    assert last.choices == []
    assert last.usage is not None
    account = last.model_extra["tokencap"]  # type: ignore[index]
    assert account["charge_nanousd"] == 1_000
    assert account["conversation_tokens_left"] == 20 - last.usage.completion_tokens


def test_refusals_are_the_exceptions_it_knows(loop: Rig) -> None:
    loop.tier("small", conversation_tokens_max=5, price_nanousd=1)
    who = loop.customer("small")
    client = client_of(loop, who)
    talk = {"X-Conversation-Id": "talk"}
    with pytest.raises(openai.NotFoundError) as not_found:
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    with pytest.raises(openai.AuthenticationError) as unknown:
        openai.OpenAI(base_url=f"{loop.url}/v1", api_key="tc-00-" + "x" * 43).models.list()
    client.chat.completions.create(model="aligned-1", messages=QUESTION, extra_headers=talk, max_tokens=5)
    while True:
        try:
            client.chat.completions.create(model="aligned-1", messages=QUESTION, extra_headers=talk)
        except openai.RateLimitError as error:
            capped = error
            break

    assert not_found.value.code == "model_not_found"
    assert unknown.value.code == "invalid_api_key"
    assert capped.code == "conversation_cap_reached"
    assert capped.response.headers["x-should-retry"] == "false"


def test_models_are_the_one_model_under_its_names(loop: Rig) -> None:
    loop.tier("open")
    client = client_of(loop, loop.customer("open"))

    assert [model.id for model in client.models.list()] == ["aligned-1", "gpt-4o"]
    assert client.models.retrieve("gpt-4o").owned_by == "tokencap"


def test_a_tool_loop_is_one_conversation_and_pays_once(loop: Rig) -> None:
    """A tool result belongs to the conversation whose answer called the tool."""
    loop.tier("open", price_nanousd=9)
    who = loop.customer("open")
    client = client_of(loop, who)
    tools: Any = [{"type": "function", "function": {"name": "measure", "parameters": {"type": "object"}}}]
    first = client.chat.completions.create(model="aligned-1", messages=QUESTION, tools=tools)
    called: Any = first.choices[0].message
    result: Any = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "3 m"}
    client.chat.completions.create(model="aligned-1", messages=[*QUESTION, called, result], tools=tools)

    called_record, answered = loop.usage(who)
    assert called_record["finish"] == "tool_calls"
    assert answered["conversation"] == called_record["conversation"]
    assert [called_record["charge_nanousd"], answered["charge_nanousd"]] == [9, 0]
