"""Claims about a rebuild: it takes as long as it takes, one process does it, and one that lost its lock stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from gateway.errors import MeteringUnavailable
from gateway.holds import keys
from gateway.holds.connect import connect, text
from gateway.holds.generation import Generation
from gateway.ledger.database import Database
from gateway.ledger.recovery import Bounds, Recovery
from tests.gateway.ledger.records import NOON
from tests.waiting import until

LOCK_S = 6.0
BOUNDS = Bounds(conversation_tokens_max=1_000, lease_ms=60_000, call_ms=600_000, observes=False)


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as client:
        yield client


def recovery(
    database: Database, client: redis.Redis, project: Callable[[], object], *, lock_s: float = 60.0
) -> Recovery:
    return Recovery(database, client, project, bounds=BOUNDS, now_ms=lambda: NOON, lock_s=lock_s)


def in_force(client: redis.Redis) -> set[str | None]:
    """Return the generations of all buckets."""
    found = [client.hget(keys.state(bucket), "generation") for bucket in keys.ALL_BUCKETS]
    return {None if value is None else text(value) for value in found}


def test_a_rebuild_that_takes_longer_than_its_lock_is_done_once(database: Database, client: redis.Redis) -> None:
    """Its lock is renewed while a step lasts, and who waits for it begins none of its own."""
    lasting, ended = threading.Event(), threading.Event()
    projected: list[str] = []

    def project() -> None:
        projected.append("first")
        lasting.set()
        assert ended.wait(60)

    first = recovery(database, client, project, lock_s=LOCK_S)
    second = recovery(database, client, lambda: projected.append("second"), lock_s=LOCK_S)
    with ThreadPoolExecutor() as pool:
        rebuilding = pool.submit(first.rebuild)
        assert lasting.wait(60)
        others = pool.submit(second.ensure)
        before = client.pttl(keys.REBUILD_LOCK)
        assert before > 0
        until(lambda: client.pttl(keys.REBUILD_LOCK) > before, 10 * LOCK_S)
        ended.set()

        assert others.result(60) == rebuilding.result(60)
    assert projected == ["first"]


def test_a_rebuild_that_lost_its_lock_stops_and_puts_nothing_in_force(database: Database, client: redis.Redis) -> None:
    """What another process writes meanwhile is not wiped, and the next rebuild is whole."""
    is_slow = True

    def project() -> None:
        if is_slow:
            client.set(keys.REBUILD_LOCK, "another's")

    slow = recovery(database, client, project)

    with pytest.raises(MeteringUnavailable):
        slow.rebuild()

    assert in_force(client) == {None}
    is_slow = False
    client.delete(keys.REBUILD_LOCK)
    generation = recovery(database, client, project).ensure()
    assert in_force(client) == {generation}


def test_who_finds_a_rebuild_under_way_is_told_so(database: Database, client: redis.Redis) -> None:
    recovery(database, client, lambda: None).rebuild()
    client.flushall()
    client.set(keys.REBUILD_LOCK, "another's")

    with pytest.raises(MeteringUnavailable, match="rebuil"):
        recovery(database, client, lambda: None).rebuild(wait_s=0.01)


async def test_a_call_waits_for_a_rebuild_for_a_moment_and_the_next_one_for_the_same() -> None:
    """Nobody waits in silence: who came too early hears of it, and one rebuild serves all who come."""
    go, asked = asyncio.Event(), []

    async def restore() -> str:
        asked.append("restore")
        await go.wait()
        return "7"

    generation = Generation(restore)
    with pytest.raises(MeteringUnavailable, match="being rebuilt"):
        await generation.learn(0, patience_s=0)
    assert generation.is_restoring
    waiting = [asyncio.create_task(generation.learn(0)) for _ in range(3)]
    go.set()
    await asyncio.gather(*waiting)

    assert asked == ["restore"]
    assert (generation.value, generation.learnt, generation.is_restoring) == ("7", 1, False)
