"""How far the ledger had come when Redis last heard of it: a server that has heard of less has lost something.

A server that was restored from an old snapshot, or a replica that took over without the last second, holds a whole and
consistent state of some moment before. It is told by its tide: the number of the chain's last record, written to Redis
inside every transaction that appends one, before that commits. A tide below the ledger's head is the past.
"""

from __future__ import annotations

import redis
from sqlalchemy import select

from gateway.errors import MeteringUnavailable
from gateway.holds import keys
from gateway.holds.connect import translated
from gateway.holds.scripts import source
from gateway.ledger.chain import MAIN
from gateway.ledger.database import Database
from gateway.ledger.tables import chains


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

    def rise(self, before: int, after: int) -> None:
        """Raise the mark to ``after`` for a transaction that finds the chain at ``before``.

        The chain's head is locked meanwhile, so calls come one after another. A commit that fails afterwards leaves
        the mark too high, which is harmless.

        Raises:
            Fallen: the mark is below ``before``.
        """
        with translated():
            was = self._raise(keys=[keys.TIDE], args=["seq", after, before])
        if int(was) < before:
            raise Fallen("Redis holds a state of the past.")

    def is_high(self, database: Database) -> bool:
        """Return whether Redis has heard of all that is in the ledger."""
        return self._mark() >= head(database)

    def restore(self, database: Database) -> None:
        """Set the mark to the ledger's head, for a state that is being rebuilt."""
        with translated():
            self._redis.hset(keys.TIDE, "seq", str(head(database)))

    def _mark(self) -> int:
        with translated():
            found = self._redis.hget(keys.TIDE, "seq")
        return int(found or 0)


def head(database: Database) -> int:
    """Return the number of the chain's last record, 0 before the first."""
    with database.read() as connection:
        return connection.execute(select(chains.c.seq).where(chains.c.chain == MAIN)).scalar_one_or_none() or 0
