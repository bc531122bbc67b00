"""Makes Redis match the ledger: notices a wiped or foreign server by its generation, and rebuilds its state once."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Protocol

import redis
from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds.announcement import Announcement, announcement
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import translated
from gateway.holds.store.inflight import Survey, calls_in
from gateway.holds.store.scripts import ScriptCall, run_joined, source
from gateway.ledger.book.appender import book
from gateway.ledger.book.watermark import LedgerReader, Watermark, head, watermark_fields
from gateway.ledger.database import Database
from gateway.ledger.installation import FIRST_GENERATION
from gateway.ledger.recovery.hot_state import Bounds, HotState
from gateway.ledger.recovery.rebuild_lock import LOCK_S, RebuildLock
from gateway.ledger.rows import batches
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.tables import customers, installation, usage_records
from gateway.ledger.writer import Writer, unheard
from pricing.usage import UsageRecord

log = logging.getLogger(__name__)

ENSURE_WAIT_S = 5.0
"""How long a call waits for a rebuild by another process before it is refused and has to be repeated."""

REBUILD_WAIT_S = 600.0
"""How long a process whose task is a rebuild waits for the lock."""

HOT = frozenset((b"key", b"customer", b"window", b"end_user", b"conversation", b"pace", b"inflight", b"hold", b"holds"))
"""The kinds of keys that a rebuild writes anew; settled marks and usage streams are never removed."""

CUSTOMERS_AT_ONCE = 500
"""The customers that are read and written at a time; a bucket serves as soon as its customers are written."""

SHARES_AT_ONCE = 3

WIPED_AT_ONCE = 10_000
"""The keys that one command scans or removes: about 5 ms of the server."""


class Projecting(Protocol):
    """Writes menus, customers and keys, which the operator has set up."""

    def write_menus(self) -> object: ...

    def write_customers(self, ids: Sequence[str], /) -> object: ...


NO_RECORDS = dict.fromkeys(redis_keys.ALL_BUCKETS, 0)


class Recovery:
    """Rebuilds the hot state from the ledger. Any process may call it; one process does the work.

    Args:
        projecting: writes customers, keys and menus into Redis from the ledger.
        note: is called with the records that a rebuild has appended to the ledger.
        marked: is called with the number of each bucket's last record in the ledger, 0 for none, whenever these are
            read: an older ledger that was put in place lowers them.
        survey: reads the buckets, and may be shared with other readers; None creates a survey.
        lock_s: how long the lock of a process that died keeps others waiting.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, or another process rebuilds, from every method; the
            call may be repeated.
    """

    def __init__(
        self,
        database: Database,
        client: redis.Redis,
        projecting: Projecting,
        *,
        bounds: Bounds,
        now_ms: Callable[[], int],
        note: Callable[[Sequence[UsageRecord]], object] = unheard,
        marked: Callable[[Mapping[str, int]], object] = unheard,
        survey: Survey | None = None,
        lock_s: float = LOCK_S,
    ) -> None:
        self._database = database
        self._redis = client
        self._lock_s = lock_s
        self._projecting = projecting
        self._bounds = bounds
        self._now_ms = now_ms
        self._rollup = Rollup(database)
        self._watermark = Watermark(client)
        self._ledger = LedgerReader(database)
        self._marked = marked
        self._writer = Writer(client, database, note=note, marked=marked)
        self._announce = client.register_script(source("announce"))
        self._survey = survey or Survey(client)
        self._remove_fields = client.register_script(source("remove_fields"))
        self._force = client.register_script(source("put_in_force"))
        self._rescue = client.register_script(source("rescue"))

    def ensure(self, heard: Callable[[str], object] = unheard) -> str:
        """Return the generation in force, after writing the buckets that Redis does not hold in this generation.

        ``heard`` is called with the generation once it is decided: buckets serve under it before all are complete.

        Raises:
            LedgerBehind: the ledger is older than the ledger that Redis knows of; nothing is rebuilt.
        """
        self._watermark.refuse_older(self._newest)
        generation = self._generation()
        if not self._missing(generation):
            return str(generation)
        return self.rebuild(unless_whole=True, wait_s=ENSURE_WAIT_S, heard=heard)

    def rebuild(
        self,
        *,
        unless_whole: bool = False,
        wait_s: float = REBUILD_WAIT_S,
        heard: Callable[[str], object] = unheard,
        without_missing: bool = False,
    ) -> str:
        """Write the hot state anew and return its generation. Calls in flight keep their holds.

        With ``unless_whole``, the buckets that Redis holds are not changed: an interrupted rebuild continues where it
        stopped.

        Raises:
            LedgerBehind: as in ``ensure``, unless the missing records are given up (``without_missing``).
        """

        def tell() -> None:
            if self._watermark.is_high(self._database):  # then a rebuild has stopped the buckets of the past
                heard(str(self._generation()))

        if not without_missing:
            self._watermark.refuse_older(self._newest)
        with (
            RebuildLock(self._redis, wait_s=wait_s, lock_s=self._lock_s, meanwhile=tell) as lock,
            translated(),
        ):
            generation = self._generation()
            missing = self._missing(generation) if unless_whole else list(redis_keys.ALL_BUCKETS)
            if missing:
                # At the first start nothing can have been lost; later something was lost, and the operator should know.
                level = logging.INFO if generation == FIRST_GENERATION else logging.WARNING
                log.log(
                    level, "writing the hot state from the ledger: %d of %d buckets", len(missing), redis_keys.BUCKETS
                )
                if len(missing) == redis_keys.BUCKETS:
                    generation = self._raise_generation(generation + 1)
                self._rebuild(str(generation), missing, lock, heard)
            return str(generation)

    def book_missing(self, currency: str) -> int:
        """Keep the counts of Redis: book the usage that an older ledger lacks as corrections; return their number.

        Nothing is settled or admitted meanwhile. The call may be repeated after a kill at any point.

        Raises:
            NothingCounted: Redis holds no complete state either.
        """
        # Only a command needs this module, so no worker loads it.
        from gateway.ledger.recovery.missing import corrections  # noqa: PLC0415

        with RebuildLock(self._redis, wait_s=REBUILD_WAIT_S, lock_s=self._lock_s) as lock, translated():
            generation = self._watermark.keep_counts(self._in_redis())
            self._stop_scripts(redis_keys.ALL_BUCKETS)
            while self._writer.turn():
                lock.check()
            there, now = head(self._database), self._now_ms()
            records = list(corrections(self._database, self._redis, head=there, now_ms=now, currency=currency))
            lock.check()
            with self._database.write() as connection:
                booked = book(connection, records)
                self._watermark.rise(booked)
                connection.execute(update(installation).values(generation=generation))
            self._put_in_force(str(generation), redis_keys.ALL_BUCKETS)
            self._watermark.restore(self._database)
            return len(records)

    def _newest(self) -> int:
        return self._ledger.read().head

    def _missing(self, generation: int) -> list[str]:
        """Return the buckets that Redis does not hold, or holds in a state of the past."""
        ledger = self._ledger.read()  # read first: a bucket's mark is raised before the ledger commits
        self._marked(NO_RECORDS | ledger.last_records)
        states = self._survey.take()
        if not self._watermark.is_at_least(ledger.head):
            return list(redis_keys.ALL_BUCKETS)
        return [
            bucket
            for bucket, state in states.items()
            if state.generation != str(generation) or state.watermark < ledger.last_records.get(bucket, 0)
        ]

    def _rebuild(
        self, generation: str, missing: Sequence[str], lock: RebuildLock, heard: Callable[[str], object]
    ) -> None:
        """Rebuild; stop before the next step if the lock is lost: the next holder of the lock wipes partial work."""
        self._stop_scripts(missing)
        self._watermark.restore(self._database)
        heard(generation)
        while self._writer.turn():
            lock.check()
        while self._rollup.turn(self._now_ms()):
            lock.check()
        in_flight = self._holds_not_in_the_book(missing)  # held in memory until they are in their buckets again
        self._projecting.write_menus()
        state = HotState(self._database, self._redis, bounds=self._bounds, now_ms=self._now_ms)

        def write(share: tuple[list[str], list[str]]) -> None:
            buckets, ids = share
            for batch in batches(ids, CUSTOMERS_AT_ONCE):
                lock.check()
                self._projecting.write_customers(batch)
                state.write(batch)
            lock.check()
            self._put_back(generation, {bucket: in_flight[bucket] for bucket in buckets})
            self._put_in_force(generation, buckets)

        customers_in = self._customers_by_bucket()
        # While a share waits for the server and its disk, others are read and written, and the next keys are removed.
        with ThreadPoolExecutor(SHARES_AT_ONCE, thread_name_prefix="rebuild") as pool:
            tasks: list[Future[None]] = []
            try:
                is_small = sum(map(len, customers_in.values())) <= CUSTOMERS_AT_ONCE
                for pattern, buckets in [("{b??}:*", missing)] if is_small else _groups(missing):
                    self._wipe(pattern, buckets, lock)
                    tasks += [pool.submit(write, share) for share in _shares(buckets, customers_in)]
                for task in tasks:
                    task.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _customers_by_bucket(self) -> Mapping[str, list[str]]:
        with self._database.read() as connection:
            ids = connection.execute(select(customers.c.id)).scalars().all()
        customers_in: dict[str, list[str]] = defaultdict(list)
        for customer in ids:
            customers_in[redis_keys.bucket_of(customer)].append(customer)
        return customers_in

    def _in_redis(self) -> set[str]:
        """Return the generations in force, with an empty text if a bucket has no generation."""
        return {there.generation for there in self._survey.take().values()}

    def _raise_generation(self, generation: int) -> int:
        with self._database.write() as connection:
            connection.execute(update(installation).values(generation=generation))
        return generation

    def _generation(self) -> int:
        with self._database.read() as connection:
            found = connection.execute(select(installation.c.generation)).scalar_one_or_none()
        if found is not None:
            return int(found)
        with self._database.write() as connection:
            # The first worker and the bookkeeper may do this at the same time.
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            first = dialect.insert(installation).values(id=1, generation=FIRST_GENERATION, created=self._now_ms())
            connection.execute(first.on_conflict_do_nothing())
        return self._generation()

    def _stop_scripts(self, buckets: Sequence[str]) -> None:
        """Remove the generation of buckets: nothing is admitted or settled there until they get a generation again."""
        states: list[ScriptCall] = [([redis_keys.state(bucket)], []) for bucket in buckets]
        run_joined(self._redis, self._remove_fields, states, "generation", "rebuilding")

    def _put_back(self, generation: str, in_flight: Mapping[str, Sequence[Announcement]]) -> None:
        """Write the holds of buckets whose windows are written, before any call is admitted there."""
        for bucket, holds in in_flight.items():
            if holds:
                self._redis.hset(redis_keys.state(bucket), "rebuilding", generation)
            for hold in holds:
                self._announce(keys=hold.keys(), args=hold.arguments(generation, self._now_ms()))

    def _put_in_force(self, generation: str, buckets: Sequence[str]) -> None:
        marks = NO_RECORDS | watermark_fields(self._database)
        self._marked({bucket: marks[bucket] for bucket in buckets})
        written: list[ScriptCall] = [
            ([redis_keys.state(bucket), redis_keys.rescued(bucket)], [marks[bucket]]) for bucket in buckets
        ]
        run_joined(self._redis, self._force, written, generation)

    def _holds_not_in_the_book(self, buckets: Sequence[str]) -> dict[str, list[Announcement]]:
        """Save the holds of calls without a record before keys are removed, and return them by bucket."""
        replies = run_joined(
            self._redis,
            self._rescue,
            [([redis_keys.inflight(bucket), redis_keys.rescued(bucket)], []) for bucket in buckets],
        )
        found = [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in replies]
        return {
            bucket: [
                announcement(call) for call in calls_in(there) if not call.is_suspect and not self._is_booked(call.id)
            ]
            for bucket, there in zip(buckets, found, strict=True)
        }

    def _is_booked(self, record_id: str) -> bool:
        with self._database.read() as connection:
            query = select(usage_records.c.seq).where(usage_records.c.id == record_id)
            return connection.execute(query).first() is not None

    def _wipe(self, pattern: str, buckets: Sequence[str], lock: RebuildLock) -> None:
        """Remove the keys of buckets; ``pattern`` matches all these keys, and the server names only matching keys."""
        prefixes = {f"{{b{bucket}}}".encode() for bucket in buckets}
        batch: list[bytes] = []
        for name in self._redis.scan_iter(match=pattern, count=WIPED_AT_ONCE):
            prefix, _, rest = name.partition(b":")
            if prefix in prefixes and rest.partition(b":")[0] in HOT:
                batch.append(name)
            if len(batch) == WIPED_AT_ONCE:
                lock.check()
                self._unlink(batch)
                batch.clear()
        lock.check()
        self._unlink(batch)

    def _unlink(self, names: Sequence[bytes]) -> None:
        """Remove keys in one command; in a cluster, where a command stays in one slot, in one command a bucket."""
        is_cluster = isinstance(self._redis, redis.RedisCluster)
        together: dict[bytes, list[bytes]] = defaultdict(list)
        for name in names:
            together[name.partition(b":")[0] if is_cluster else b""].append(name)
        with self._redis.pipeline(transaction=False) as batch:
            for keys in together.values():
                batch.unlink(*keys)
            batch.execute()


def _groups(buckets: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the buckets whose keys are removed in one pass over the server, with the pattern of their names.

    The first bucket has a pass of its own, so that it serves soon; each further pass is for buckets with the same first
    digit.
    """
    first, *rest = buckets
    yield f"{{b{first}}}:*", [first]
    for digit, together in groupby(rest, key=lambda bucket: bucket[0]):
        yield f"{{b{digit}?}}:*", list(together)


def _shares(buckets: Sequence[str], customers_in: Mapping[str, Sequence[str]]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield buckets that are written together, with their customers: fewer buckets where customers are many."""
    share: list[str] = []
    share_ids: list[str] = []
    for bucket in buckets:
        share.append(bucket)
        share_ids += customers_in.get(bucket, ())
        if len(share_ids) >= CUSTOMERS_AT_ONCE:
            yield share, share_ids
            share, share_ids = [], []
    if share:
        yield share, share_ids
