"""Claims about the log of refusals: bounded, written together, and lost before it costs a call anything."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from itertools import chain, repeat
from typing import Any

import orjson
import pytest

from gateway.errors import (
    AccountInconsistent,
    BadRequest,
    InsufficientQuota,
    InvalidKey,
    MeteringUnavailable,
    NoTier,
    Reached,
)
from gateway.holds.hold import ReservationRequest
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect_shared
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.refusal_log import (
    KEPT_S,
    MOST,
    MOST_OF_BUCKET,
    WAITING_MOST,
    RefusalLog,
    is_kept,
    refusals_of,
    shown,
)

NOW = 1_767_268_800_000


@pytest.fixture
async def connection(valkey_url: str) -> AsyncIterator[RedisConnection]:
    connection = connect_shared(valkey_url)
    yield connection
    await connection.aclose()


def request(name: str) -> ReservationRequest:
    return ReservationRequest(
        id=name,
        bucket="00",
        key_digest="d",
        conversation="c",
        endpoint="/v1/chat/completions",
        model="m",
        stream=False,
        choices=1,
        requested_tokens=None,
        input_bound=1,
        input_estimate=1,
    )


def refused(used: int = 5) -> InsufficientQuota:
    error = InsufficientQuota("No.")
    error.reached = Reached("period_tokens_max", 10, used, 1, 20)
    return error


async def test_what_was_noted_is_read_newest_first(connection: RedisConnection) -> None:
    times = chain((NOW, NOW + 2, NOW + 1), repeat(NOW + 3))
    log = RefusalLog(connection, lambda: next(times))
    log.note("cus_a", "key_1", request("one"), refused())
    log.note("cus_a", None, request("two"), NoTier("None."))
    log.note("cus_b", "key_2", request("three"), refused(6))
    await log.flush()

    of_a, of_b = await refusals_of(connection, "cus_a"), await refusals_of(connection, "cus_b")

    none = dict.fromkeys(("limit", "max", "used", "held", "asked", "key_id"))
    assert of_a == [
        {"time": NOW + 2, "status": 403, "code": "no_tier", **none, "request_id": "two"},
        {
            **{"time": NOW, "status": 429, "code": "insufficient_quota", "limit": "period_tokens_max", "max": 10},
            **{"used": 5, "held": 1, "asked": 20, "key_id": "key_1", "request_id": "one"},
        },
    ]
    assert [one["request_id"] for one in of_b] == ["three"]


async def test_a_storm_of_refusals_is_bounded_in_the_worker_and_in_redis(connection: RedisConnection) -> None:
    log = RefusalLog(connection, lambda: NOW)
    for number in range(WAITING_MOST + 1):
        log.note("cus_a", "key_1", request(f"req_{number}"), refused())
    assert sum(map(len, log._waiting.values())) == WAITING_MOST
    await log.flush()
    log.note("cus_a", "key_1", request("after"), refused())
    await log.flush()

    found = await refusals_of(connection, "cus_a")

    assert len(found) == MOST
    assert await connection.execute("LLEN", redis_keys.refusals(redis_keys.bucket_of("cus_a"), "cus_a")) == MOST
    assert {"after", f"req_{WAITING_MOST - 1}"} <= {one["request_id"] for one in found}


async def test_what_is_kept_of_a_bucket_is_bounded_in_all(connection: RedisConnection) -> None:
    """The logs of customers that were refused longest ago go, whole, also where they had expired already; others stay."""
    one = redis_keys.bucket_of("cus_a")
    customers = [name for number in range(20_000) if redis_keys.bucket_of(name := f"cus_{number}") == one][:6]
    moment = NOW
    log = RefusalLog(connection, lambda: moment)

    async def refuse(customer: str, times: int) -> None:
        for number in range(times):
            log.note(customer, "key_1", request(f"{customer}-{number}"), refused())
        await log.flush()

    async def kept() -> list[int]:
        names = [redis_keys.refusals(one, customer) for customer in customers]
        return [await connection.execute("LLEN", name) for name in names]

    for place, customer in enumerate(customers[:5]):
        moment = NOW + place
        await refuse(customer, 700)
    moment += 1
    await refuse(customers[0], 10)
    before = await kept()
    moment += 1
    await refuse(customers[5], 700)
    after = await kept()
    moment = NOW + (KEPT_S + 1) * 1000
    await refuse(customers[1], MOST + 5)

    assert before == [710, 700, 700, 700, 700, 0]
    assert after == [710, 0, 700, 700, 700, 700]
    counts = await connection.execute("HGETALL", redis_keys.refusal_counts(one))
    assert dict(zip(counts[::2], counts[1::2], strict=True)) == {b"": b"1000", customers[1].encode(): b"1000"}
    assert await connection.execute("ZCARD", redis_keys.refusal_order(one)) == 1
    assert MOST_OF_BUCKET == 4_000


async def test_a_redis_that_takes_nothing_costs_the_log_and_nothing_else(
    connection: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    name = redis_keys.refusals(redis_keys.bucket_of("cus_a"), "cus_a")
    await connection.execute("SET", name, "of another kind")
    log = RefusalLog(connection, lambda: NOW)
    log.note("cus_a", "key_1", request("one"), refused())
    log.note("cus_b", "key_2", request("of another customer"), refused())

    with caplog.at_level(logging.WARNING):
        await log.flush()
    await connection.execute("DEL", name)
    log.note("cus_a", "key_1", request("two"), refused())
    await log.flush()

    assert "1 refusals are not kept" in caplog.text
    assert [one["request_id"] for one in await refusals_of(connection, "cus_a")] == ["two"]
    assert [one["request_id"] for one in await refusals_of(connection, "cus_b")] == ["of another customer"]


def test_an_entry_that_was_written_twice_is_shown_once() -> None:
    entry = orjson.dumps((NOW, 429, "insufficient_quota", None, None, None, None, None, None, "one"))

    assert [one["request_id"] for one in shown([entry, entry])] == ["one"]


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (refused(), True),
        (NoTier("None."), True),
        (AccountInconsistent("No."), True),
        (BadRequest("No."), True),
        (InvalidKey(), False),
        (MeteringUnavailable(), False),
    ],
)
def test_what_is_the_customers_own_is_kept(error: Any, kept: bool) -> None:
    assert is_kept(error) is kept
