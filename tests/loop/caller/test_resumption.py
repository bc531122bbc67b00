"""An answer that was cut at its cap and is sent back continues its conversation: the next piece is not sold again."""

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

LONG = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((500,), (1.0,)))
QUESTION = {"role": "user", "content": "Hello"}


@pytest.fixture
def capped(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path, law=LONG) as running:
        running.tier("small", conversation_tokens_max=90, price_nanousd=7)
        yield running


def say(loop: Rig, who: Sold, messages: list[Any], **more: Any) -> httpx.Response:
    body = {"model": "aligned-1", "messages": messages, **more}
    return httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=who.headers, timeout=30)


def text_of(answer: httpx.Response) -> str:
    if answer.headers["content-type"].startswith("application/json"):
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_answer_that_is_brought_back_finds_its_cap_reached(capped: Rig, stream: bool) -> None:
    who = capped.customer("small")
    cut = say(capped, who, [QUESTION], stream=stream)
    answer = {"role": "assistant", "content": text_of(cut)}
    parts = {"role": "assistant", "content": [{"type": "text", "text": text_of(cut) + "\n"}]}
    go_on = {"role": "user", "content": "Go on."}

    for messages in ([QUESTION, answer], [QUESTION, answer, go_on], [QUESTION, parts, go_on]):
        refused = say(capped, who, messages)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "conversation_cap_reached")
    assert [record["charge_nanousd"] for record in capped.usage(who)] == [7]


def test_an_answer_cut_by_its_own_caller_begins_no_thread(capped: Rig) -> None:
    who = capped.customer("small")
    cut = say(capped, who, [QUESTION], max_tokens=10)
    again = say(capped, who, [QUESTION, {"role": "assistant", "content": text_of(cut)}], max_tokens=10)

    assert again.status_code == 200
    assert again.headers["x-tokencap-conversation"] != cut.headers["x-tokencap-conversation"]


def test_a_customer_who_brings_back_anothers_answer_begins_a_conversation(capped: Rig) -> None:
    one, other = capped.customer("small"), capped.customer("small")
    cut = say(capped, one, [QUESTION])

    assert say(capped, other, [QUESTION, {"role": "assistant", "content": text_of(cut)}]).status_code == 200
