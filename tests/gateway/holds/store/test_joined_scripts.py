"""Scripts that take many buckets in one command: each bucket gets what is its own, on one server and in a cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.holds.store.scripts import run_joined, source

BUCKETS = redis_keys.ALL_BUCKETS[:3]
STATES = [redis_keys.state(bucket) for bucket in BUCKETS]
RESCUED = [redis_keys.rescued(bucket) for bucket in BUCKETS]


@pytest.fixture(params=["valkey_url", "cluster_url"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with connect(request.getfixturevalue(request.param)) as client:
        yield client


def test_a_number_rises_and_never_falls_nor_rises_from_below_its_least_value(client: redis.Redis) -> None:
    for name, number in zip(STATES, (5, 5, 2), strict=True):
        client.hset(name, "tide", number)

    before = run_joined(
        client,
        client.register_script(source("advance")),
        [([name], ["tide", number, least]) for name, number, least in zip(STATES, (9, 3, 9), (5, 1, 5), strict=True)],
    )

    assert list(map(int, before)) == [5, 5, 2]
    assert [client.hget(name, "tide") for name in STATES] == [b"9", b"5", b"2"]


def test_each_bucket_is_put_in_force_with_its_own_newest_record(client: redis.Redis) -> None:
    for name, rescued in zip(STATES, RESCUED, strict=True):
        client.hset(name, "rebuilding", 7)
        client.hset(rescued, "req_1", "a hold")

    run_joined(
        client,
        client.register_script(source("put_in_force")),
        [([name, rescued], [mark]) for name, rescued, mark in zip(STATES, RESCUED, (11, 0, 13), strict=True)],
        "7",
    )

    assert [client.hgetall(name) for name in STATES] == [
        {b"generation": b"7", b"tide": mark} for mark in (b"11", b"0", b"13")
    ]
    assert client.keys("*rescued*") == []


def test_holds_are_rescued_in_the_order_of_their_buckets_with_those_of_a_rebuild_that_was_broken_off(
    client: redis.Redis,
) -> None:
    held = [redis_keys.inflight(bucket) for bucket in BUCKETS]
    client.hset(held[0], "req_1", "a hold")
    client.hset(RESCUED[0], "req_0", "an older hold")
    client.hset(RESCUED[2], "req_2", "another bucket's")

    found = run_joined(
        client,
        client.register_script(source("rescue")),
        [([name, rescued], []) for name, rescued in zip(held, RESCUED, strict=True)],
    )

    assert [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in found] == [
        {b"req_0": b"an older hold", b"req_1": b"a hold"},
        {},
        {b"req_2": b"another bucket's"},
    ]
    assert client.hget(RESCUED[0], "req_1") == b"a hold"


def test_fields_are_removed_from_every_bucket_and_others_stay(client: redis.Redis) -> None:
    for name in STATES:
        client.hset(name, items=["generation", 7, "rebuilding", 8, "tide", 9])

    run_joined(
        client,
        client.register_script(source("remove_fields")),
        [([name], []) for name in STATES],
        "generation",
        "rebuilding",
    )

    assert [client.hgetall(name) for name in STATES] == [{b"tide": b"9"}] * len(STATES)
