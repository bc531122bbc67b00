"""One Idempotency-Key, one upstream call, one charge: a repeated request is sent the same answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.holds.store.clients import connect, fields
from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}
OURS = ("content-type", "x-request-id", "x-tokencap-cap", "x-tokencap-tier", "x-tokencap-charge-nanousd")


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share, each with its own customers; its model takes a third of a second for an answer."""
    law = Law(tokens_per_s=100, first_token_s=0, lengths=Table((30,), (1.0,)))
    with rig(*shared, gateways=2, law=law, lease_s=2) as running:
        running.tier("open", conversation_tokens_max=1_000, price_nanousd=7)
        yield running


def say(loop: Rig, who: Sold, name: str, gateway: int = 0, **more: Any) -> httpx.Response:
    headers = {**who.headers, "idempotency-key": name}
    return httpx.post(loop.urls[gateway] + CHAT, json={**BODY, **more}, headers=headers, timeout=30)


@pytest.mark.parametrize("more", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
def test_a_repetition_is_sent_the_same_answer_and_costs_nothing(
    loop: Rig, calls_before: int, more: dict[str, Any]
) -> None:
    who = loop.customer("open")
    first, again = say(loop, who, "k1", **more), say(loop, who, "k1", gateway=1, **more)

    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert [again.headers.get(name) for name in OURS] == [first.headers.get(name) for name in OURS]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert loop.counted()["calls"] == calls_before + 1
    assert [record["charge_nanousd"] for record in loop.usage(who)] == [7]


async def test_ten_at_once_are_one_call(loop: Rig, calls_before: int) -> None:
    who = loop.customer("open")
    answers = await asyncio.gather(*(asyncio.to_thread(say, loop, who, "k1", number % 2) for number in range(10)))
    running = [answer for answer in answers if answer.status_code == 409]

    assert sum(answer.status_code == 200 for answer in answers) + len(running) == 10
    assert {answer.json()["error"]["code"] for answer in running} == {"idempotency_in_progress"}
    assert all(answer.headers["retry-after"] == "1" for answer in running)
    assert loop.counted()["calls"] == calls_before + 1


def test_another_body_is_another_request(loop: Rig) -> None:
    who = loop.customer("open")
    say(loop, who, "k1")
    other = say(loop, who, "k1", temperature=1)
    key = loop.admin.post(f"/admin/customers/{who.id}/keys", json={}).json()["key"]
    stranger = say(loop, Sold(who.id, key), "k1")

    for answer in (other, stranger):
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_keys_are_a_customers_own(loop: Rig, calls_before: int) -> None:
    one, other = loop.customer("open"), loop.customer("open")
    say(loop, one, "k1")

    assert say(loop, other, "k1").status_code == 200
    assert loop.counted()["calls"] == calls_before + 2


def test_a_caller_who_hangs_up_finds_the_whole_answer_when_it_asks_again(loop: Rig, calls_before: int) -> None:
    who = loop.customer("open")
    headers = {**who.headers, "idempotency-key": "k1"}
    body = {**BODY, "stream": True}
    with httpx.stream("POST", loop.url + CHAT, json=body, headers=headers) as answer:
        next(answer.iter_raw())
    until(lambda: say(loop, who, "k1", stream=True).status_code == 200)
    again = say(loop, who, "k1", stream=True)
    (record,) = loop.usage(who)

    assert again.text.endswith("data: [DONE]\n\n")
    assert (record["finish"], record["output_tokens"]) == ("complete", 30)
    assert loop.counted()["calls"] == calls_before + 1


def test_a_refusal_leaves_the_key_free(loop: Rig) -> None:
    loop.tier("tiny", period_tokens_max=0, price_nanousd=1)
    who = loop.customer("tiny")
    refused = say(loop, who, "k1")
    loop.admin.put(f"/admin/customers/{who.id}/tier", json={"tier": "open", "effective": "now"})

    assert refused.status_code == 429
    assert say(loop, who, "k1").status_code == 200


def test_a_failed_call_leaves_the_key_free(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    answers = iter([500, 200])

    async def flaky(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status = next(answers) if scope["method"] == "POST" else 404
        text = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": text})

    with rig(valkey_url, sqlite_url, tmp_path, upstream=flaky) as loop:
        loop.tier("open")
        who = loop.customer("open")

        assert say(loop, who, "k1").status_code == 502
        assert say(loop, who, "k1").status_code == 200


def test_an_answer_that_broke_off_is_not_kept(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """The caller has a part of the answer, and can only get the rest by asking again."""
    event = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":%b}]}\n\n'
    answers = iter([event % b"null", event % b"null" + event % b'"stop"' + b"data: [DONE]\n\n"])

    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        is_call = scope["method"] == "POST"
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200 if is_call else 404, "headers": head})
        await send({"type": "http.response.body", "body": next(answers) if is_call else b""})

    with rig(valkey_url, sqlite_url, tmp_path, upstream=breaking) as loop:
        loop.tier("open")
        who = loop.customer("open")
        broken, whole = say(loop, who, "k1", stream=True), say(loop, who, "k1", stream=True)

        assert "[DONE]" not in broken.text
        assert (whole.status_code, whole.text.endswith("data: [DONE]\n\n")) == (200, True)
        assert "idempotency-replayed" not in whole.headers
        assert say(loop, who, "k1", stream=True).headers["idempotency-replayed"] == "true"


def test_what_is_kept_says_nothing_to_who_reads_redis(loop: Rig) -> None:
    who = loop.customer("open")
    with connect(loop.settings.redis_url) as client:
        before = set(client.scan_iter("*:once:*"))
        answer = say(loop, who, "k1").json()["choices"][0]["message"]["content"]
        (kept,) = set(client.scan_iter("*:once:*")) - before
        stored = client.hgetall(kept)

    assert set(fields(dict.fromkeys(stored, b""))) == {"body", "call", "answer"}
    assert len(answer) > 12
    assert answer[:12].encode() not in stored[b"answer"]


def test_a_key_is_printable_and_not_too_long(loop: Rig) -> None:
    who = loop.customer("open")

    for name in ("", "x" * 256):
        answer = say(loop, who, name)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
