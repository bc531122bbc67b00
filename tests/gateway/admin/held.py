"""A call in flight, as Redis has it, for tests of what waits for one."""

from __future__ import annotations

from typing import Any

import redis

from gateway.holds.announcement import Announcement
from gateway.holds.hold import Facts
from gateway.holds.store import redis_keys
from gateway.holds.store.scripts import source

FACTS: dict[str, Any] = {
    **{
        "tier": "t2",
        "tier_chosen": None,
        "menu_version": "m1",
        "endpoint": "/v1/chat/completions",
        "model": "aligned-1",
    },
    **{"stream": True, "choices": 1, "requested_tokens": None, "client_request_id": None, "currency": "USD"},
    **{"price_nanousd": 0, "included_conversations": 0, "input_nanousd_per_mtok": 0, "output_nanousd_per_mtok": 0},
    **{"input_bound": 10, "input_estimate": 10, "conversation_tokens_max": 100},
}


def hold(client: redis.Redis, customer: str, admitted: int, name: str = "req_held") -> Announcement:
    """Write the hold of a call that was admitted at a moment."""
    bucket = redis_keys.bucket_of(customer)
    facts = Facts(
        id=name,
        bucket=bucket,
        customer=customer,
        key_id="key_1",
        conversation="c1",
        period_start=admitted,
        period_end=admitted + 1,
        **FACTS,
    )
    announcement = Announcement(facts, "w_1", admitted + 10**6, admitted, 50, 50, 0, 0, admitted, False, False)
    client.hset(redis_keys.state(bucket), "generation", "1")
    reply = client.register_script(source("announce"))(
        keys=announcement.keys(), args=announcement.arguments("1", admitted)
    )
    assert reply == b"announced"
    return announcement


def release(client: redis.Redis, announcement: Announcement) -> None:
    """Take it away again."""
    client.delete(redis_keys.inflight(announcement.facts.bucket))
