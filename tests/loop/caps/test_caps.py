"""A cap holds whatever the upstream does: the answer ends exactly at the cap, in a well-formed way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until

LONG = Law(tokens_per_s=float("inf"), first_token_s=0, ignore_limits=True, lengths=Table((500,), (1.0,)))


@pytest.fixture
def unruly(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    """A loop whose upstream answers with 500 tokens whatever limit it receives."""
    with rig(valkey_url, sqlite_url, tmp_path, law=LONG) as running:
        running.tier("small", conversation_tokens_max=20, price_nanousd=1_000)
        yield running


def body(**more: Any) -> dict[str, Any]:
    return {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], **more}


def chunks_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return a stream's chunks, after asserting that it ends with ``[DONE]``."""
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


def post(loop: Rig, who: Sold, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=who.headers, timeout=30)


def test_a_stream_ends_at_the_grant_exactly_where_the_upstream_ignores_it(unruly: Rig) -> None:
    who = unruly.customer("small")
    chunks = chunks_of(post(unruly, who, body(stream=True, stream_options={"include_usage": True})))

    texts = [chunk["choices"][0]["delta"] for chunk in chunks[:-1] if chunk["choices"][0]["delta"].get("content")]
    assert len(texts) == 20
    assert chunks[-2]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    assert chunks[-1]["usage"]["completion_tokens"] == 20
    assert chunks[-1]["tokencap"] == {"charge_nanousd": 1_000, "conversation_tokens_left": 0}
    (record,) = unruly.usage(who)
    assert (record["finish"], record["billed_output_tokens"], record["cap_tokens"]) == ("cap", 20, 20)


def test_an_answer_ends_at_the_grant_exactly_where_the_upstream_ignores_it(unruly: Rig) -> None:
    who = unruly.customer("small")
    answer = post(unruly, who, body(max_tokens=7, seed=1)).json()
    streamed = chunks_of(post(unruly, who, body(max_tokens=7, seed=1, stream=True)))

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 7
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed]
    assert len(list(filter(None, pieces))) == 7
    assert answer["choices"][0]["message"]["content"] == "".join(pieces)
    record, _ = unruly.usage(who)
    assert (record["finish"], record["billed_output_tokens"], record["cap_tokens"]) == ("caller_limit", 7, 7)


def test_an_upstream_that_ignores_the_grant_is_hung_up_on(unruly: Rig) -> None:
    who = unruly.customer("small")
    post(unruly, who, body())

    until(lambda: unruly.counted()["live"] == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_three_choices_share_one_cap(unruly: Rig, stream: bool) -> None:
    who = unruly.customer("small")
    answer = post(unruly, who, body(n=3, stream=stream))

    assert answer.headers["x-tokencap-cap"] == "6"
    if stream:
        choices = [choice for chunk in chunks_of(answer) for choice in chunk["choices"]]
        for index in range(3):
            assert sum(bool(c["delta"].get("content")) for c in choices if c["index"] == index) == 6
    else:
        assert [choice["finish_reason"] for choice in answer.json()["choices"]] == ["length"] * 3
    (record,) = unruly.usage(who)
    assert (record["billed_output_tokens"], record["choices"]) == (18, 3)


def test_a_caller_who_hangs_up_pays_for_what_was_made_and_the_upstream_is_closed(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """Where the operator configures an engine that stops with its caller, only relayed tokens are billed."""
    slow = Law(tokens_per_s=200, first_token_s=0, lengths=Table((100_000,), (1.0,)))
    with rig(valkey_url, sqlite_url, tmp_path, law=slow, on_hangup="stop", hangup_bills="visible") as loop:
        loop.tier("open")
        who = loop.customer("open")
        address = f"{loop.url}/v1/chat/completions"
        with httpx.stream("POST", address, json=body(stream=True), headers=who.headers) as answer:
            seen = 0
            for line in answer.iter_lines():
                seen += '"content":"' in line and '"content":""' not in line
                if seen >= 30:
                    break
        loop.until_nothing_is_held()

        (record,) = loop.usage(who)
        assert record["finish"] == "disconnect"
        assert record["usage_source"] == "counted"
        assert record["billed_output_tokens"] >= 30
        until(lambda: loop.counted()["live"] == 0)
        assert record["billed_output_tokens"] <= loop.counted()["completion_tokens"]
