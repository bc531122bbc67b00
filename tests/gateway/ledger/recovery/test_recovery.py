"""Claims about a rebuild: it takes as long as it takes, one process does it, and one that lost its lock stops."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
import redis
from sqlalchemy import func, insert, select

from gateway.errors import MeteringUnavailable
from gateway.holds.announcement import Announcement, announcement
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, text
from gateway.holds.store.generation import Generation, in_own_thread
from gateway.holds.store.packing import WindowState, window_state
from gateway.holds.store.scripts import source
from gateway.ledger.book.appender import book
from gateway.ledger.book.watermark import Fallen, Watermark
from gateway.ledger.database import Database
from gateway.ledger.recovery.hot_state import Bounds
from gateway.ledger.recovery.recovery import CUSTOMERS_AT_ONCE, SHARES_AT_ONCE, Recovery
from gateway.ledger.tables import customers, usage_records
from tests.buckets import generations
from tests.gateway.holds.harness import holds_harness
from tests.gateway.ledger.records import NOON, customer_row, record
from tests.waiting import rising, until

LOCK_S = 6.0
BOUNDS = Bounds(conversation_tokens_max=1_000, lease_ms=60_000, call_ms=600_000, observes=False)


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as client:
        yield client


class Written:
    """Stands for the writing of what the operator has set up; each step does first what the test says."""

    def __init__(
        self,
        menus: Callable[[], object] = lambda: None,
        customers: Callable[[Sequence[str]], object] = lambda _: None,
    ) -> None:
        self.write_menus = menus
        self.write_customers = customers


def recovery(
    database: Database, client: redis.Redis, projecting: Written | None = None, *, lock_s: float = 60.0
) -> Recovery:
    return Recovery(database, client, projecting or Written(), bounds=BOUNDS, now_ms=lambda: NOON, lock_s=lock_s)


def with_customers(database: Database, many: int) -> None:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(f"cus_{number}") for number in range(many)])


def in_force(client: redis.Redis) -> set[str | None]:
    """Return the generations of all buckets."""
    return {generation or None for generation in generations(client).values()}


def test_a_rebuild_that_takes_longer_than_its_lock_is_done_once(database: Database, client: redis.Redis) -> None:
    """Its lock is renewed while a step lasts, and who waits for it begins none of its own."""
    lasting, ended = threading.Event(), threading.Event()
    projected: list[str] = []

    def project() -> None:
        projected.append("first")
        lasting.set()
        assert ended.wait(60)

    first = recovery(database, client, Written(project), lock_s=LOCK_S)
    second = recovery(database, client, Written(lambda: projected.append("second")), lock_s=LOCK_S)
    with ThreadPoolExecutor() as pool:
        rebuilding = pool.submit(first.rebuild)
        assert lasting.wait(60)
        others = pool.submit(second.ensure)
        assert client.pttl(redis_keys.REBUILD_LOCK) > 0
        until(rising(lambda: client.pttl(redis_keys.REBUILD_LOCK)), 10 * LOCK_S)
        ended.set()

        assert others.result(60) == rebuilding.result(60)
    assert projected == ["first"]


def test_a_rebuild_that_lost_its_lock_stops_and_puts_nothing_in_force(database: Database, client: redis.Redis) -> None:
    """What another process writes meanwhile is not wiped, and the next rebuild is whole."""
    is_slow = True

    def project() -> None:
        if is_slow:
            client.set(redis_keys.REBUILD_LOCK, "another's")

    slow = recovery(database, client, Written(project))

    with pytest.raises(MeteringUnavailable):
        slow.rebuild()

    assert in_force(client) == {None}
    is_slow = False
    client.delete(redis_keys.REBUILD_LOCK)
    generation = recovery(database, client, Written(project)).ensure()
    assert in_force(client) == {generation}


class Killed(BaseException):
    """Stands for the end of a process at that point."""


class KilledAt(Recovery):
    """Ends at one of its steps, after everything before it."""

    def __init__(self, step: str, database: Database, client: redis.Redis) -> None:
        self._last = step
        projecting = Written(lambda: self._end("menus"), lambda _: self._end("customers"))
        super().__init__(database, client, projecting, bounds=BOUNDS, now_ms=lambda: NOON, lock_s=60.0)

    def _end(self, step: str) -> None:
        if step == self._last:
            raise Killed

    def _put_back(self, generation: str, in_flight: Mapping[str, Sequence[Announcement]]) -> None:
        self._end("put_back")
        super()._put_back(generation, in_flight)

    def _put_in_force(self, generation: str, buckets: Sequence[str]) -> None:
        self._end("put_in_force")
        super()._put_in_force(generation, buckets)


@pytest.mark.parametrize("step", ["menus", "customers", "put_back", "put_in_force"])
async def test_a_rebuild_that_is_killed_loses_no_hold_of_a_dead_worker(
    valkey_url: str, database: Database, step: str
) -> None:
    """Nobody else remembers such a hold, and what it came to until then is billed."""
    with_customers(database, 1)
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("cus_0", "basic")
        await harness.play("reserve settled cus_0 40 -> granted 40\nsettle settled 30 -> charged 0")
        await harness.reserve("one", "cus_0", 60)
        harness.renew("one", 20)
        for _ in range(2):
            with pytest.raises(Killed):
                KilledAt(step, database, harness.blocking).rebuild()
            harness.blocking.delete(redis_keys.REBUILD_LOCK)
        recovery(database, harness.blocking).rebuild()

        after = harness.in_flight("cus_0")["one"]
        assert (after.tokens, after.sofar, after.admitted) == (60, 20, harness.holds["one"].admitted)
        assert (harness.window("cus_0")["used"], harness.window("cus_0")["held"]) == (30, 60)
        assert harness.blocking.exists(redis_keys.rescued(redis_keys.bucket_of("cus_0"))) == 0
        assert harness.blocking.hget(redis_keys.state(redis_keys.bucket_of("cus_0")), "rebuilding") is None


async def test_no_worker_tells_its_hold_to_a_bucket_that_is_half_rebuilt(valkey_url: str, database: Database) -> None:
    """Its window is written after that, without what the hold holds."""
    with_customers(database, 1)
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("cus_0", "basic")
        hold = await harness.reserve("one", "cus_0", 60)
        bucket = redis_keys.bucket_of("cus_0")
        replies: list[str] = []

        def announce_at_once(_: object) -> None:
            heard_of = announcement(before)
            assert harness.blocking.hget(redis_keys.state(bucket), "generation") is None
            announce = harness.blocking.register_script(source("announce"))
            replies.append(text(announce(heard_of.keys(), heard_of.arguments("2", NOON))))

        before = harness.in_flight("cus_0")[hold.id]
        recovery(database, harness.blocking).rebuild()
        harness.blocking.hdel(redis_keys.state(bucket), "generation")
        with pytest.raises(Killed):
            KilledAt("put_in_force", database, harness.blocking).ensure()
        harness.blocking.delete(redis_keys.REBUILD_LOCK)
        recovery(database, harness.blocking, Written(customers=announce_at_once)).ensure()

        assert replies == ["rebuild"]
        assert harness.window("cus_0")["held"] == 60
        assert list(harness.in_flight("cus_0")) == ["one"]
        assert harness.blocking.hget(redis_keys.state(bucket), "generation") == b"2"


async def test_a_rebuild_waits_for_no_thread_of_others() -> None:
    """All the loop's own are waiting, for a ledger that is slow to be read: what everyone waits for begins all the same."""
    loop, over = asyncio.get_running_loop(), threading.Event()
    own = ThreadPoolExecutor(2)
    loop.set_default_executor(own)
    waiting = [loop.run_in_executor(None, over.wait) for _ in range(2)]
    with ExitStack() as stack:
        stack.callback(over.set)
        generation = Generation(in_own_thread(stack, lambda _heard: "7"))

        await asyncio.wait_for(generation.learn(0), 30)

        assert generation.value == "7"
    await asyncio.gather(*waiting)


def test_who_finds_a_rebuild_under_way_is_told_so(database: Database, client: redis.Redis) -> None:
    recovery(database, client).rebuild()
    client.flushall()
    client.set(redis_keys.REBUILD_LOCK, "another's")

    with pytest.raises(MeteringUnavailable, match="rebuil"):
        recovery(database, client).rebuild(wait_s=0.01)


def test_a_bucket_serves_as_soon_as_it_is_written(database: Database, client: redis.Redis) -> None:
    """The generation is announced before: a waiter for a single bucket need not wait for all of them."""
    with_customers(database, (SHARES_AT_ONCE + 2) * CUSTOMERS_AT_ONCE)  # the last shares wait for the first
    heard_of: list[str] = []
    served: list[int] = []

    def look(_ids: Sequence[str]) -> None:
        assert heard_of, "a worker that hears of it only at the end serves nobody before"
        served.append(sum(generation == heard_of[-1] for generation in generations(client).values()))

    generation = recovery(database, client, Written(customers=look)).ensure(heard_of.append)

    assert heard_of[-1] == generation
    assert served[0] == 0
    assert 0 < max(served) < redis_keys.BUCKETS
    assert in_force(client) == {generation}


def test_a_rebuild_that_was_broken_off_goes_on_where_it_ended(database: Database, client: redis.Redis) -> None:
    """However often that happens it comes to its end, and what serves already is let be."""
    with_customers(database, 4 * CUSTOMERS_AT_ONCE)
    written: set[str] = set()
    draw, tries = random.Random(3), 0

    def dying(ids: Sequence[str]) -> None:
        if draw.random() < 0.4:
            raise RuntimeError("killed")
        written.update(ids)

    rebuilding, generation = recovery(database, client, Written(customers=dying)), ""
    while not generation:
        tries += 1
        with suppress(RuntimeError):
            generation = rebuilding.ensure()

    assert tries > 3
    assert in_force(client) == {generation}
    assert written == {f"cus_{number}" for number in range(4 * CUSTOMERS_AT_ONCE)}


def test_a_bucket_that_lost_its_state_is_written_by_itself(database: Database, client: redis.Redis) -> None:
    with_customers(database, 40)
    written: list[str] = []
    rebuilding = recovery(database, client, Written(customers=written.extend))
    generation = rebuilding.ensure()
    lost = redis_keys.bucket_of("cus_7")
    kept = redis_keys.window(redis_keys.bucket_of("cus_8"), "cus_8", 0)
    client.delete(redis_keys.state(lost))
    client.hset(kept, "amounts", WindowState(used=5).to_bytes())
    written.clear()

    assert rebuilding.ensure() == generation
    assert written == ["cus_7"]
    assert window_state(client, kept).used == 5, "what serves is not touched"


def append(database: Database, client: redis.Redis, *numbers: int, customer: str = "cus_7") -> None:
    """Book calls of a customer, as whoever writes the book does."""
    with database.write() as connection:
        booked = book(connection, [record(number, customer=customer) for number in numbers])
        Watermark(client).rise(booked)


def test_what_is_booked_is_heard_of_in_its_bucket(database: Database, client: redis.Redis) -> None:
    """Otherwise each record would have its bucket taken for one of the past, and written anew."""
    with_customers(database, 40)
    written: list[str] = []
    rebuilding = recovery(database, client, Written(customers=written.extend))
    generation = rebuilding.ensure()
    written.clear()

    append(database, client, 1)
    append(database, client, 2, 3)

    assert rebuilding.ensure() == generation
    assert written == []


def test_a_bucket_that_has_heard_of_less_than_is_booked_is_written_by_itself(
    database: Database, client: redis.Redis
) -> None:
    """As of a server that came back without its last second, in this bucket alone."""
    with_customers(database, 40)
    written: list[str] = []
    rebuilding = recovery(database, client, Written(customers=written.extend))
    generation = rebuilding.ensure()
    append(database, client, 1)
    before = client.hgetall(redis_keys.state(redis_keys.bucket_of("cus_7")))
    append(database, client, 2)
    client.hset(redis_keys.state(redis_keys.bucket_of("cus_7")), mapping=before)
    written.clear()

    assert rebuilding.ensure() == generation
    assert written == ["cus_7"]
    assert rebuilding.ensure() == generation
    assert written == ["cus_7"], "once"


def test_a_record_is_not_booked_beside_a_bucket_of_the_past(database: Database, client: redis.Redis) -> None:
    with_customers(database, 1)
    recovery(database, client).ensure()
    append(database, client, 1, customer="cus_0")
    before = client.hgetall(redis_keys.state(redis_keys.bucket_of("cus_0")))
    append(database, client, 2, customer="cus_0")
    client.hset(redis_keys.state(redis_keys.bucket_of("cus_0")), mapping=before)

    with pytest.raises(Fallen):
        append(database, client, 3, customer="cus_0")

    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(usage_records)).scalar_one() == 2


async def test_a_call_waits_for_its_own_bucket_only() -> None:
    go, whole = asyncio.Event(), {"07"}

    async def restore(heard: Callable[[str], object]) -> str:
        heard("7")
        await go.wait()
        return "7"

    async def in_force(bucket: str) -> str:
        return "7" if bucket in whole else ""

    generation = Generation(restore, in_force)
    await generation.learn(0, "07")
    assert generation.is_restoring
    with pytest.raises(MeteringUnavailable, match="being rebuilt"):
        await generation.learn(0, "08", patience_s=0)
    waiting = asyncio.create_task(generation.learn(0, "08"))
    whole.add("08")
    await waiting
    assert generation.is_restoring
    go.set()
    await generation.learn(0)
    assert not generation.is_restoring


async def test_a_bucket_of_the_past_is_not_taken_for_whole_before_the_rebuild_has_stopped_it() -> None:
    """It shows the generation that was in force: only what is heard in this rebuild says that it is."""
    go = asyncio.Event()
    go.set()

    async def restore(heard: Callable[[str], object]) -> str:
        await go.wait()
        return "7"

    async def in_force(_bucket: str) -> str:
        return "7"

    generation = Generation(restore, in_force)
    await generation.learn(0)
    go.clear()
    with pytest.raises(MeteringUnavailable, match="being rebuilt"):
        await generation.learn(1, "07", patience_s=0)
    go.set()
    await generation.learn(1, "07")
    assert generation.learnt == 2


async def test_a_call_waits_for_a_rebuild_for_a_moment_and_the_next_one_for_the_same() -> None:
    """Nobody waits in silence: who came too early hears of it, and one rebuild serves all who come."""
    go, asked = asyncio.Event(), []

    async def restore(_heard: object) -> str:
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
