"""The keys that calls leave in Redis live exactly as long as the gateway's promises need them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.holds.store.clients import connect, text
from tests.loop.rig import Rig, Sold

MINUTE_S, HOUR_S = 60, 3_600
DAY_S = 24 * HOUR_S

LIFETIMES_S = {
    "thread": HOUR_S,
    "once": DAY_S,
    "answers": DAY_S + 2 * HOUR_S,
}


def left_s(loop: Rig) -> dict[str, list[float]]:
    """Return the remaining lifetimes of each kind of key in the buckets; -1e-3 is a key that never expires."""
    left: dict[str, list[float]] = {}
    with connect(loop.settings.redis_url) as client:
        for name in client.scan_iter("{b??}:*"):
            left.setdefault(text(name).split(":")[1], []).append(client.pttl(name) / 1000)
    return left


def say(loop: Rig, who: Sold, name: str, **body: Any) -> httpx.Response:
    request = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], **body}
    headers = {**who.headers, "idempotency-key": name}
    return httpx.post(f"{loop.url}/v1/chat/completions", json=request, headers=headers, timeout=30)


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_call_leaves_expires_when_its_promise_ends(loop: Rig, stream: bool) -> None:
    """An answer is kept for a day, and a conversation is found by its thread for an hour."""
    loop.tier("open", period_tokens_max=100_000)
    who = loop.customer("open")
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    assert say(loop, who, "once", stream=stream, tools=[tool], tool_choice="required").status_code == 200
    loop.until_nothing_is_held()

    left = left_s(loop)

    for kind, lifetime_s in LIFETIMES_S.items():
        assert left[kind], kind
        assert all(lifetime_s - 5 * MINUTE_S < seconds <= lifetime_s for seconds in left[kind]), (kind, left[kind])
    idle_s = HOUR_S + loop.settings.call_deadline_s
    assert all(idle_s - 5 * MINUTE_S < seconds <= idle_s for seconds in left["conversation"])
    assert left["window"] == left["customer"] == [-1e-3]
    assert left["settled"] == [-1e-3], "its worker removes the mark, else the bookkeeper after a day"
    assert "inflight" not in left


def test_a_call_that_comes_to_nothing_leaves_nothing_lasting(loop: Rig) -> None:
    """The Idempotency-Key of a refused call is free at once, and nobody can fill the server with refusals."""
    loop.tier("open", period_tokens_max=5)
    who = loop.customer("open")
    say(loop, who, "first", max_tokens=5)
    loop.until_nothing_is_held()
    before = {kind: len(each) for kind, each in left_s(loop).items()}

    refused = [say(loop, who, f"again {number}", max_tokens=5).status_code for number in range(5)]

    assert set(refused) == {429}
    after = {kind: len(each) for kind, each in left_s(loop).items()}
    once = ("refusals", "locked_out", "refusal-counts", "refusal-order")
    assert {after.pop(kind, 0) for kind in once} <= {0, 1}, "one of each for a customer or its bucket, however often"
    assert after == before
