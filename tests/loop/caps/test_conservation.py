"""granted = used + held + remaining is checked all the time: a breach is seen within a turn, and so is its repair.

A breach stops only its own customer: a customer whose window does not add up is not served, every other customer is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from struct import pack
from typing import Any

import httpx
import pytest
import redis

from gateway.clock import now_ms
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, fields
from gateway.holds.store.packing import window_state
from tests.loop.rig import Rig, Sold
from tests.waiting import until

ASKED: dict[str, Any] = {
    "model": "aligned-1",
    "messages": [{"role": "user", "content": "How long is a piece of string?"}],
}


@pytest.fixture
def client(loop: Rig) -> Iterator[redis.Redis]:
    with connect(loop.settings.redis_url) as client:
        yield client


@pytest.fixture
def acme(loop: Rig) -> Sold:
    """A customer whose first call is in the ledger."""
    loop.tier("only", conversation_tokens_max=5, price_nanousd=7, period_tokens_max=1_000, spend_nanousd_max=1_000)
    customer = loop.customer("only")
    answered = httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=customer.headers)
    assert answered.is_success
    assert [record["billed_output_tokens"] for record in loop.usage(customer)] == [5]
    return customer


def is_ready(loop: Rig) -> bool:
    return httpx.get(f"{loop.url}/readyz").status_code == 200


def is_served(loop: Rig, customer: Sold) -> bool:
    """Make a call and return whether it is served; assert that a refusal is for the customer's breach."""
    answered = httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=customer.headers)
    if answered.is_success:
        return True
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "account_inconsistent")
    assert int(answered.headers["retry-after"]) >= 1
    return False


def add(client: redis.Redis, window: str, field: str, amount: int) -> None:
    was = window_state(client, window)
    client.hset(window, "amounts", replace(was, **{field: getattr(was, field) + amount}).to_bytes())


def window_of(client: redis.Redis, customer: Sold) -> str:
    [name] = client.scan_iter(f"*:window:{customer.id}:*")
    return str(name.decode())


@pytest.mark.parametrize(
    ("field", "amount", "sentence"),
    [
        ("held", 40, "40 tokens are held, its 0 open holds have 0"),
        ("spend_used", -2, "5 tokens and 5 nano-units are used, records say 5 tokens and 7"),
    ],
)
def test_a_breach_made_by_hand_stops_its_customer_and_nobody_else_until_it_is_repaired(
    loop: Rig,
    acme: Sold,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    field: str,
    amount: int,
    sentence: str,
) -> None:
    """Holds and records are checked by tokens and by money; the log states the difference, once."""
    other = loop.customer("only")
    window = window_of(client, acme)

    add(client, window, field, amount)
    until(lambda: client.hexists(window, "breach"))

    assert not is_served(loop, acme)
    assert is_served(loop, other)
    assert is_ready(loop)
    assert sentence in " ".join(fields(client.hgetall(redis_keys.BREACHES)).values())
    assert httpx.get(f"{loop.url}/livez").status_code == 200
    add(client, window, field, -amount)
    until(lambda: not client.exists(redis_keys.BREACHES))
    assert is_served(loop, acme)
    lines = [record.message for record in caplog.records if "conservation is broken" in record.message]
    assert [line for line in lines if sentence in line and f"for {acme.id} in" in line] != []
    assert len(lines) == len(set(lines))


def test_a_hold_without_its_tokens_in_the_window_is_a_breach(loop: Rig, acme: Sold, client: redis.Redis) -> None:
    """The reverse case: a hold has tokens that no window counts as held."""
    bucket = redis_keys.bucket_of(acme.id)
    hold = b"live\0" + pack("<11d", 7, *[0] * 5, now_ms() + 600_000, now_ms(), 7, 7, 0)
    client.hset(redis_keys.inflight(bucket), "stray", hold + f"w_1\0{window_of(client, acme)}\0{{}}".encode())
    until(lambda: not is_served(loop, acme))

    client.hdel(redis_keys.inflight(bucket), "stray")
    until(lambda: is_served(loop, acme))


def test_books_that_lost_a_record_are_a_breach(loop: Rig, acme: Sold, client: redis.Redis) -> None:
    """Tokens that the window counts as used and no record has would be billed to nobody."""
    window = window_of(client, acme)
    add(client, window, "used", 9)

    until(lambda: client.exists(redis_keys.BREACHES))

    assert not is_served(loop, acme)
    [(place, _)] = fields(client.hgetall(redis_keys.BREACHES)).items()
    assert place == f"books {window}"


def test_calls_in_flight_and_changes_of_limits_are_no_breach(loop: Rig, client: redis.Redis) -> None:
    """Everything adds up while calls run, limits fall below what is used, and a period changes its kind."""
    loop.tier("only", conversation_tokens_max=5, price_nanousd=7, period_tokens_max=1_000)
    customer = loop.customer("only")
    for turn in range(60):
        answered = httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=customer.headers)
        assert answered.is_success
        if turn == 20:
            loop.admin.patch(f"/admin/customers/{customer.id}", json={"period": "day"})
        if turn == 40:
            loop.admin.patch(f"/admin/customers/{customer.id}", json={"period": "month"})
        assert is_ready(loop), fields(client.hgetall(redis_keys.BREACHES))
    loop.admin.patch(f"/admin/customers/{customer.id}", json={"overrides": {"period_tokens_max": 20}})
    turns = len(loop.usage(customer))

    assert turns == 60
    assert is_ready(loop)
