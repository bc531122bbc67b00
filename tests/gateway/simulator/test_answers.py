"""What the simulated model answers: as long as law and limits say, repeatable, with honest usage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.gateway.simulator.hosting import FAST, question, simulator
from tests.late import Library

openai = Library("openai")

TOOLS = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look_up", "send")]
TWELVE_TOKENS = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((12,), (1.0,)))
ENDLESS = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((12,), (0.0,)), context_tokens=2_000)


@pytest.fixture(scope="module")
def twelve() -> Iterator[httpx.Client]:
    """A model whose answers all have twelve tokens."""
    with simulator(TWELVE_TOKENS) as client:
        yield client


def whole(client: httpx.Client, **more: Any) -> dict[str, Any]:
    response = client.post("/v1/chat/completions", json=question(**more))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events(client: httpx.Client, **more: Any) -> list[dict[str, Any]]:
    """Return the chunks of a stream, which must end with ``[DONE]``."""
    text = client.post("/v1/chat/completions", json=question(stream=True, **more)).text
    *chunks, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def texts(chunks: list[dict[str, Any]], index: int = 0) -> list[str]:
    """Return the contents of one choice, an entry a token."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


def test_an_answer_says_that_it_is_simulated(twelve: httpx.Client) -> None:
    """Words, fingerprint and server header each say so."""
    response = twelve.post("/v1/chat/completions", json=question())
    answer = response.json()

    assert answer["choices"][0]["message"]["content"].startswith("This answer is simulated:")
    assert answer["system_fingerprint"] == "tokencap-simulator"
    assert response.headers.get_list("server") == ["tokencap-simulator"]


@pytest.mark.parametrize(
    ("limits", "tokens", "finish"),
    [
        ({}, 12, "stop"),
        ({"max_tokens": 12}, 12, "stop"),
        ({"max_tokens": 11}, 11, "length"),
        ({"max_completion_tokens": 1}, 1, "length"),
        ({"max_tokens": 5, "max_completion_tokens": 9}, 5, "length"),
        ({"max_tokens": 9, "max_completion_tokens": 5}, 5, "length"),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7, "length"),
    ],
)
def test_the_smaller_limit_is_obeyed_to_the_token(
    twelve: httpx.Client, limits: dict[str, int | None], tokens: int, finish: str
) -> None:
    """Whole and streamed, an answer has min(length, limits) tokens and says why it ended."""
    answer = whole(twelve, seed=1, **limits)
    chunks = events(twelve, seed=1, **limits)

    assert answer["usage"]["completion_tokens"] == tokens
    assert answer["choices"][0]["finish_reason"] == finish
    assert len(texts(chunks)) == tokens
    assert "".join(texts(chunks)) == answer["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (tokens + 1) + [finish]


def test_a_model_told_to_ignore_limits_does(twelve: httpx.Client) -> None:
    """``ignore_limits`` stands for the upstream that a gateway must cut by itself; bad limits are still refused."""
    with simulator(Law(tokens_per_s=float("inf"), lengths=Table((12,), (1.0,)), ignore_limits=True)) as client:
        answer = whole(client, max_tokens=3)
        refused = client.post("/v1/chat/completions", json=question(max_tokens=0))

    assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (12, "stop")
    assert refused.status_code == 400


def test_an_endless_answer_ends_at_its_limit_or_at_the_context() -> None:
    """What never finishes by itself has ``length`` for an ending."""
    with simulator(ENDLESS) as client:
        limited = whole(client, max_tokens=700)
        unlimited = whole(client)

    assert limited["usage"]["completion_tokens"] == 700
    assert unlimited["usage"]["total_tokens"] == 2_000
    assert {answer["choices"][0]["finish_reason"] for answer in (limited, unlimited)} == {"length"}


def test_choices_are_several_answers_that_each_obey_the_limit() -> None:
    """With n choices each has its own words and its own ending, and usage is their sum."""
    with simulator() as client:
        answer = whole(client, n=5, seed=4, max_tokens=15)
        chunks = events(client, n=5, seed=4, max_tokens=15, stream_options={"include_usage": True})

    contents = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4]
    assert len(set(contents)) == 5
    assert ["".join(texts(chunks, index)) for index in range(5)] == contents
    assert max(len(texts(chunks, index)) for index in range(5)) == 15
    assert answer["usage"]["completion_tokens"] == sum(len(texts(chunks, index)) for index in range(5))
    assert chunks[-1]["usage"] == answer["usage"]


def test_equal_seeds_give_equal_answers() -> None:
    """The n-th call of a restarted simulator answers as before; a request's own seed outweighs its number."""
    with simulator() as first, simulator() as second:
        once = [whole(first)["choices"] for _ in range(5)]
        again = [whole(second)["choices"] for _ in range(5)]
        pinned = [whole(client, seed=7)["choices"] for client in (first, second, second)]
    with simulator(Law(seed=1, tokens_per_s=float("inf"), first_token_s=0, mean_tokens=20)) as other:
        elsewhere = [whole(other)["choices"] for _ in range(5)]

    assert once == again
    assert len({str(choices) for choices in once}) == 5
    assert pinned[0] == pinned[1] == pinned[2]
    assert elsewhere != once


def test_usage_is_streamed_only_where_it_was_asked_for(twelve: httpx.Client) -> None:
    """With ``include_usage`` one last chunk without choices has it and all others say null; without, none has the key."""
    plain = events(twelve)
    chunks = events(twelve, stream_options={"include_usage": True})

    assert all("usage" not in chunk for chunk in plain)
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 14
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert chunks[-1]["usage"]["total_tokens"] == chunks[-1]["usage"]["prompt_tokens"] + 12


def test_continuous_usage_grows_with_each_chunk_of_a_choice(twelve: httpx.Client) -> None:
    """As in vLLM it counts the chunk's own choice, and by itself, without ``include_usage``, does nothing."""
    both = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(twelve, n=2, stream_options=both)
    alone = events(twelve, stream_options={"continuous_usage_stats": True})

    counted = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk["choices"]]
    per_choice = [counted[index] for index in range(len(counted)) if chunks[index]["choices"][0]["index"] == 1]
    assert per_choice == [*range(13), 12]
    assert chunks[-1]["usage"]["completion_tokens"] == 24
    assert all("usage" not in chunk for chunk in alone)


def test_prompt_tokens_follow_the_stated_rule(twelve: httpx.Client) -> None:
    """Four for each message, and one for each begun four bytes of its text."""
    messages = [
        {"role": "system", "content": "12345"},
        {"role": "user", "content": [{"type": "text", "text": "äöü"}, {"type": "text", "text": "12"}]},
    ]

    assert whole(twelve, messages=messages)["usage"]["prompt_tokens"] == 4 + 2 + 4 + 2


def test_the_openai_client_streams_a_tool_call_and_brings_back_its_result(twelve: httpx.Client) -> None:
    """A user's message with tools is answered by a call of the first tool, in pieces; the tool's result by words."""
    client = openai.OpenAI(base_url=str(twelve.base_url.join("/v1")), api_key="any")
    messages: list[Any] = question()["messages"]
    with client.chat.completions.stream(model="aligned-1", messages=messages, tools=TOOLS) as stream:  # type: ignore[arg-type]
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        choice = stream.get_final_completion().choices[0]
    [call] = choice.message.tool_calls or []
    result = {"role": "tool", "tool_call_id": call.id, "content": "42"}
    answer = client.chat.completions.create(
        model="aligned-1",
        messages=[*messages, choice.message.model_dump(exclude_none=True), result],
        tools=TOOLS,  # type: ignore[arg-type]
    )

    assert choice.finish_reason == "tool_calls"
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments) == {"simulated": True}
    assert len(deltas) > 2
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.tool_calls is None


def test_tool_calls_have_fresh_ids_the_named_function_and_their_limit(twelve: httpx.Client) -> None:
    """Ids never repeat, not even for equal seeds; ``tool_choice`` names the function or forbids the call."""
    named = {"type": "function", "function": {"name": "send"}}
    calls = [whole(twelve, tools=TOOLS, tool_choice=named, seed=1, n=2)["choices"] for _ in range(2)]
    messages = [choice["message"] for choices in calls for choice in choices]
    cut = whole(twelve, tools=TOOLS, max_tokens=3)
    forbidden = whole(twelve, tools=TOOLS, tool_choice="none")

    assert len({message["tool_calls"][0]["id"] for message in messages}) == 4
    assert {message["tool_calls"][0]["function"]["name"] for message in messages} == {"send"}
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 3
    assert cut["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"simulated'
    assert forbidden["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("content", "called"),
    [
        ("Look it up and send it.", "send"),
        ([{"type": "text", "text": "SEND it"}, {"type": "text", "text": "look_up, send"}], "look_up"),
        ([{"type": "text", "text": "send"}, {"type": "text", "text": "anything"}], "look_up"),
    ],
    ids=["its name is a word of the user's", "the one that comes first in the last text", "or the first one"],
)
def test_the_tool_that_the_user_names_is_called(twelve: httpx.Client, content: Any, called: str) -> None:
    request = {"messages": [{"role": "user", "content": content}], "tools": TOOLS}
    [choice] = whole(twelve, **request)["choices"]

    assert choice["message"]["tool_calls"][0]["function"]["name"] == called


def test_the_openai_client_lists_the_one_model() -> None:
    """GET /v1/models names the model of the law, and only it."""
    with simulator(Law(model="ours")) as client:
        models = openai.OpenAI(base_url=str(client.base_url.join("/v1")), api_key="any").models
        listed = [model.id for model in models.list()]
        found = models.retrieve("ours")
        with pytest.raises(openai.NotFoundError):
            models.retrieve("theirs")

    assert listed == [found.id] == ["ours"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[" * 100_000, 400, None),
        (b"[]", 400, None),
        (b"{}", 400, "model"),
        (question(model=1), 400, "model"),
        (question(model="other"), 404, "model"),
        (question(messages=[]), 400, "messages"),
        (question(messages="hello"), 400, "messages"),
        (question(messages=[{"role": "king", "content": "hello"}]), 400, "messages[0].role"),
        (question(messages=[{"role": "user", "content": 1}]), 400, "messages[0].content"),
        (question(messages=[{"role": "tool", "content": "42"}]), 400, "messages[0].tool_call_id"),
        (question(messages=[{"role": "assistant", "tool_calls": "no"}]), 400, "messages[0].tool_calls"),
        *((question(max_tokens=limit), 400, "max_tokens") for limit in (0, -1, "5", 1.5, 5.0, True, [])),
        *((question(max_completion_tokens=limit), 400, "max_completion_tokens") for limit in (0, -1, "5", False)),
        *((question(n=n), 400, "n") for n in (0, 129, 1.0, "2")),
        (question(max_tokens=10**18), 400, "messages"),
        (question("long " * 300_000), 400, "messages"),
        (question(stream="yes"), 400, "stream"),
        (question(stream_options={"include_usage": True}), 400, "stream_options"),
        (question(stream=True, stream_options=[]), 400, "stream_options"),
        (question(stream=True, stream_options={"include_usage": 1}), 400, "include_usage"),
        (question(seed=0.5), 400, "seed"),
        (question(tools={}), 400, "tools"),
        (question(tools=[{"type": "function"}]), 400, "tools"),
        (question(tool_choice="look_up"), 400, "tool_choice"),
        (question(tools=TOOLS, tool_choice={"function": {"name": "other"}}), 400, "tool_choice"),
    ],
)
def test_what_a_strict_engine_refuses_is_refused(
    twelve: httpx.Client, body: bytes | dict[str, Any], status: int, param: str | None
) -> None:
    """A refusal names the field, is counted by its status and generates nothing."""
    before = twelve.get("/simulator/count").json()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    response = twelve.post("/v1/chat/completions", content=content)

    after = twelve.get("/simulator/count").json()
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert after["calls_by_status"][str(status)] == before["calls_by_status"].get(str(status), 0) + 1
    assert after["prompt_tokens"] == before["prompt_tokens"]
    assert after["completion_tokens"] == before["completion_tokens"]


def test_other_routes_and_methods_are_not_found() -> None:
    """The simulator serves a short list and nothing that could generate uncounted."""
    with simulator(FAST) as client:
        statuses = [
            client.request(method, path).status_code
            for method, path in [
                ("POST", "/v1/audio/speech"),
                ("POST", "/v1/chat/completions/"),
                ("GET", "/v1/chat/completions"),
                ("POST", "/v1/models"),
                ("GET", "/"),
            ]
        ]
        count = client.get("/simulator/count").json()

    assert statuses == [404] * 5
    assert count["calls"] == 0


def test_llamacpp_says_the_usage_of_each_choice_alone() -> None:
    """A whole answer has that of the first choice, a stream one behind each choice, as llama.cpp was seen to send."""
    with simulator(replace(TWELVE_TOKENS, profile="llamacpp")) as client:
        answer = whole(client, n=3, max_tokens=5)
        chunks = events(client, n=3, max_tokens=5, stream_options={"include_usage": True})

    assert len(answer["choices"]) == 3
    assert answer["usage"]["completion_tokens"] == 5
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")] == [5, 5, 5]
