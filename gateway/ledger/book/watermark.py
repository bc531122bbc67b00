"""Marks in Redis how far the ledger had come, so that an outdated Redis or an outdated ledger is recognised.

A server that was restored from an old snapshot, or a replica that took over without the last second, holds a complete
and consistent state of an earlier moment. Its watermark shows this: the number of the chain's last record, which every
transaction that appends writes to Redis before it commits. A mark below the ledger's head belongs to a state of the
past. Each bucket has its own mark, in its state: where only some buckets are of the past, only these are rebuilt.

A ledger of the past is recognised by ``booked``: the number of the last record that was certainly committed, written
together with the removal of its stream entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from sqlalchemy import Connection, select

from gateway.errors import MeteringUnavailable, StartupError
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, translated
from gateway.holds.store.scripts import run_joined, source
from gateway.ledger.book.appender import Booked
from gateway.ledger.book.chain import MAIN
from gateway.ledger.database import Database
from gateway.ledger.tables import chains, watermarks


class Fallen(MeteringUnavailable):
    """Redis holds a state of the past; it has to be rebuilt before anything more is read from it."""


class RecordsMissing(Exception):
    """The message for the operator where the ledger is older than its Redis."""


class NothingCounted(Exception):
    """The message for the operator where Redis is not complete, so that its counts cannot replace missing records."""


BOOKED = "booked"
COUNTED = "counted"
"""The field for the generation that is stopped while its counts are booked."""


class LedgerBehind(MeteringUnavailable):
    """The ledger lacks records that it once had: an older copy was put in its place."""


class Watermark:
    """Reads and writes the marks in Redis.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, from every method.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._raise = client.register_script(source("advance"))

    def rise(self, booked: Booked) -> None:
        """Raise the marks for a transaction that appends.

        The chain's head is locked meanwhile, so there is one such call at a time. A commit that fails afterwards leaves
        the marks too high, which is harmless.

        Raises:
            Fallen: a mark is below its value when the ledger was last appended to.
        """
        fields = [(redis_keys.WATERMARK, "seq", booked.before, booked.after)]
        fields += [(redis_keys.state(bucket), "tide", *between) for bucket, between in booked.buckets.items()]
        with translated():
            previous = run_joined(
                self._redis, self._raise, [([name], [field, to, at]) for name, field, at, to in fields]
            )
        if any(int(mark) < at for mark, (_, _, at, _) in zip(previous, fields, strict=True)):
            raise Fallen("Redis holds a state of the past.")

    def confirm(self, after: int, batch: Any) -> None:
        """Note, in a pipeline, that the ledger has committed its records up to ``after``; a full server takes this."""
        with translated():
            # A cluster's pipeline takes no scripts.
            pipeline = None if isinstance(self._redis, redis.RedisCluster) else batch
            self._raise(keys=[redis_keys.WATERMARK], args=[BOOKED, after, 0], client=pipeline)

    def refuse_older(self, newest_of: Callable[[], int]) -> None:
        """Raise where the ledger, whose last record ``newest_of`` reads, is older than the ledger that Redis knows of.

        Raises:
            LedgerBehind: with the number of records that are missing in its cause.
        """
        with translated():
            booked, newest = int(self._redis.hget(redis_keys.WATERMARK, BOOKED) or 0), newest_of()
        if booked > newest:
            raise LedgerBehind("The books are not in order; try again later.") from RecordsMissing(
                f"The ledger ends at record {newest} and has had {booked}: {booked - newest} records are missing, as where "
                "an older copy was put in its place, or a running gateway's directory was copied file by file. Put the "
                "newer ledger back. Or decide: `tokencap ledger recover --book-missing` books what Redis counts of them, "
                "one correction for each customer and period; `--without-missing` gives them up."
            )

    def keep_counts(self, generations: set[str]) -> int:
        """Note the generation that will be in force again once the ledger has the counts of Redis; return it.

        Raises:
            NothingCounted: there is no such generation, because Redis is not complete.
        """
        with translated():
            if len(generations) == 1 and "" not in generations:
                self._redis.hset(redis_keys.WATERMARK, COUNTED, generations.pop())
            found = self._redis.hget(redis_keys.WATERMARK, COUNTED)
        if found is None:
            raise NothingCounted("Redis holds no whole state either; there is only --without-missing.")
        return int(found)

    def is_high(self, database: Database) -> bool:
        """Return whether Redis knows of every record in the ledger."""
        return self.is_at_least(head(database))  # the ledger is read first: a mark is raised before the ledger commits

    def is_at_least(self, seq: int) -> bool:
        """Return whether Redis knows of the record with this number; the number was read from the ledger before."""
        return self._mark() >= seq

    def restore(self, database: Database) -> None:
        """Set the mark to the ledger's head, for a state that is being rebuilt."""
        with translated():
            newest = str(head(database))
            self._redis.hset(redis_keys.WATERMARK, mapping={"seq": newest, BOOKED: newest})
            self._redis.hdel(redis_keys.WATERMARK, COUNTED)

    def _mark(self) -> int:
        with translated():
            found = self._redis.hget(redis_keys.WATERMARK, "seq")
        return int(found or 0)


def watermark_fields(database: Database) -> dict[str, int]:
    """Return the number of the last record of each bucket that has any."""
    with database.read() as connection:
        return _last_records(connection)


def _last_records(connection: Connection) -> dict[str, int]:
    return {row.bucket: row.seq for row in connection.execute(select(watermarks))}


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What Redis has to know of the ledger: its last record, and the last record of each bucket that has any."""

    head: int
    last_records: dict[str, int]


class LedgerReader:
    """Reads the ledger's state anew only where something was committed since; the bookkeeper calls it every second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = ""
        self._state = LedgerState(0, {})

    def read(self) -> LedgerState:
        """Return the present state."""
        version = self._database.version()  # read first, so that the state read after it is at least as new
        if version != self._version:
            with self._database.read() as connection:
                self._state = LedgerState(_head(connection), _last_records(connection))
            self._version = version
        return self._state


def refuse_at_start(redis_url: str, database: Database) -> None:
    """Raise StartupError where the ledger is older than the ledger that Redis knows: at a start a person reads this."""
    try:
        with connect(redis_url) as client:
            Watermark(client).refuse_older(partial(head, database))
    except LedgerBehind as error:
        raise StartupError(str(error.__cause__)) from error
    except MeteringUnavailable:
        pass  # a later check finds it once both are available


def head(database: Database) -> int:
    """Return the number of the chain's last record, 0 before the first."""
    with database.read() as connection:
        return _head(connection)


def _head(connection: Connection) -> int:
    return connection.execute(select(chains.c.seq).where(chains.c.chain == MAIN)).scalar_one_or_none() or 0
