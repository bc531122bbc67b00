"""Moves settled usage records from the streams in Redis into the ledger, and trims them only once they are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import groupby

import redis

from gateway.holds import keys
from gateway.holds.connect import translated
from gateway.ledger.appender import book
from gateway.ledger.aside import keep_aside
from gateway.ledger.database import Database
from gateway.ledger.entries import Entry, Malformed, record_in
from gateway.ledger.tide import Tide
from pricing.usage import UsageRecord

ENTRIES_PER_STREAM = 32
"""Read at once from each stream: a turn with every stream full is 8,192 rows, half a second of SQLite."""

STREAMS = tuple(keys.usage(bucket) for bucket in keys.ALL_BUCKETS)

log = logging.getLogger(__name__)


def unheard(records: Sequence[UsageRecord]) -> None:
    """Tell nobody of records."""


class Writer:
    """Any number of writers may run, and any may die at any moment: none owns anything.

    Each turn reads the streams from their beginning, appends what the book does not have yet, commits, and deletes
    exactly the entries it read. Dying before the commit loses nothing; dying after it makes the next turn, anyone's,
    read the same entries again and find their ids in the book.

    Args:
        note: is told of the records that this writer has appended, once they are in the book.

    Raises:
        MeteringUnavailable: Redis or the database is not to be had, from ``turn``; call it again later.
        Fallen: Redis holds a state of the past, from ``turn``; nothing was appended or trimmed.
    """

    def __init__(
        self,
        client: redis.Redis,
        database: Database,
        *,
        note: Callable[[Sequence[UsageRecord]], object] = unheard,
        entries_per_stream: int = ENTRIES_PER_STREAM,
    ) -> None:
        self._redis = client
        self._database = database
        self._note = note
        self._entries_per_stream = entries_per_stream
        self._tide = Tide(client)

    def turn(self) -> int:
        """Move what is waiting, up to a bound; return how many entries left the streams: 0 when all are empty."""
        entries = self._read()
        if entries:
            self._book(entries)
            self._trim(entries)
        return len(entries)

    def waiting(self) -> int:
        """Return how many entries wait in all streams together."""
        with translated(), self._redis.pipeline(transaction=False) as batch:
            for stream in STREAMS:
                batch.xlen(stream)
            return sum(batch.execute())

    def _read(self) -> list[Entry]:
        """Return the first entries of every stream in the order in which they were added."""
        with translated(), self._redis.pipeline(transaction=False) as batch:
            for stream in STREAMS:
                batch.xrange(stream, "-", "+", count=self._entries_per_stream)
            replies = batch.execute()
        found = [
            Entry(stream, name.decode(), fields)
            for stream, reply in zip(STREAMS, replies, strict=True)
            for name, fields in reply
        ]
        return sorted(found, key=Entry.order)

    def _book(self, entries: Sequence[Entry]) -> None:
        carried = [(entry, record_in(entry)) for entry in entries]
        records = [(entry, found) for entry, found in carried if not isinstance(found, Malformed)]
        aside = [found for _, found in carried if isinstance(found, Malformed)]
        with self._database.write() as connection:
            booked = book(connection, [record for _, record in records])
            self._tide.rise(booked.before, booked.after)
            aside += [
                Malformed(records[place][0], "the book has another record of this id") for place in booked.conflicting
            ]
            keep_aside(connection, aside)
        self._note(booked.appended)
        for kept in aside:
            log.error("Entry %s of %s is set aside: %s.", kept.entry.id, kept.entry.stream, kept.reason)

    def _trim(self, entries: Sequence[Entry]) -> None:
        by_stream = groupby(sorted(entries, key=lambda entry: entry.stream), key=lambda entry: entry.stream)
        with translated(), self._redis.pipeline(transaction=False) as batch:
            for stream, read in by_stream:
                batch.xdel(stream, *(entry.id for entry in read))
            batch.execute()
