"""How far the ledger had come when Redis last heard of it: a server that has heard of less has lost something.

A server that was restored from an old snapshot, or a replica that took over without the last second, holds a whole and
consistent state of some moment before. It is told by its tide: the number of the chain's last record, written to Redis
inside every transaction that appends one, before that commits. A tide below the ledger's head is the past. Each bucket
has its own, in its state: where some of them alone are of the past, they alone are written anew.
"""

from __future__ import annotations

import redis
from sqlalchemy import select

from gateway.errors import MeteringUnavailable
from gateway.holds import keys
from gateway.holds.connect import translated
from gateway.holds.scripts import run_all, source
from gateway.ledger.appender import Booked
from gateway.ledger.chain import MAIN
from gateway.ledger.database import Database
from gateway.ledger.tables import chains, watermarks


class Fallen(MeteringUnavailable):
    """Redis holds a state of the past; it has to be rebuilt before anything more is taken from it."""


class Tide:
    """The mark in Redis.

    Raises:
        MeteringUnavailable: Redis or the ledger is not to be had, from every method.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._raise = client.register_script(source("advance"))

    def rise(self, booked: Booked) -> None:
        """Raise the marks for a transaction that appends.

        The chain's head is locked meanwhile, so calls come one after another. A commit that fails afterwards leaves
        the marks too high, which is harmless.

        Raises:
            Fallen: one is below what it was when the ledger was last appended to.
        """
        marks = [(keys.TIDE, "seq", booked.before, booked.after)]
        marks += [(keys.state(bucket), "tide", *between) for bucket, between in booked.buckets.items()]
        with translated():
            found = run_all(self._redis, self._raise, [([name], [field, to, at]) for name, field, at, to in marks])
        if any(int(was) < at for was, (_, _, at, _) in zip(found, marks, strict=True)):
            raise Fallen("Redis holds a state of the past.")

    def is_high(self, database: Database) -> bool:
        """Return whether Redis has heard of all that is in the ledger."""
        least = head(database)  # read first: a mark is raised before the ledger is
        return self._mark() >= least

    def restore(self, database: Database) -> None:
        """Set the mark to the ledger's head, for a state that is being rebuilt."""
        with translated():
            self._redis.hset(keys.TIDE, "seq", str(head(database)))

    def _mark(self) -> int:
        with translated():
            found = self._redis.hget(keys.TIDE, "seq")
        return int(found or 0)


def marks(database: Database) -> dict[str, int]:
    """Return the number of the last record of each bucket that has any."""
    with database.read() as connection:
        return {row.bucket: row.seq for row in connection.execute(select(watermarks))}


def head(database: Database) -> int:
    """Return the number of the chain's last record, 0 before the first."""
    with database.read() as connection:
        return connection.execute(select(chains.c.seq).where(chains.c.chain == MAIN)).scalar_one_or_none() or 0
