"""Moves settled usage records from the streams in Redis into the ledger, and trims them only after the commit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import redis

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import next_entries, translated
from gateway.ledger.book.appender import book
from gateway.ledger.book.dead_letters import keep_dead_letters
from gateway.ledger.book.entries import Entry, Malformed, record_in
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.sums.kept_threads import keep_threads, threads_in
from gateway.ledger.sums.rollup import Rollup
from pricing.usage import UsageRecord

ENTRIES_PER_TURN = 8_192
"""The most entries of a turn: about half a second of SQLite. Each stream has a share; longer streams use the rest."""

STREAMS = tuple(redis_keys.usage(bucket) for bucket in redis_keys.ALL_BUCKETS)

log = logging.getLogger(__name__)


def unheard(_reported: object) -> None:
    """Do nothing with a report."""


class Writer:
    """Moves records from the streams into the book. Any number of writers may run and die at any moment.

    No writer owns anything. Each turn reads the streams from their beginning, appends the records that the book does
    not have yet, commits, and deletes exactly the entries it read. A writer that dies before the commit loses nothing;
    if it dies after the commit, the next turn of any writer reads the same entries again and finds their ids in the
    book.

    Args:
        note: is called with the records that this writer has appended, once they are committed.
        marked: is called with the number of each bucket's last record after a commit.

    Raises:
        MeteringUnavailable: Redis or the database is unavailable, from ``turn``; call it again later.
        Fallen: Redis holds a state of the past, from ``turn``; nothing was appended or trimmed.
    """

    def __init__(
        self,
        client: redis.Redis,
        database: Database,
        *,
        note: Callable[[Sequence[UsageRecord]], object] = unheard,
        marked: Callable[[Mapping[str, int]], object] = unheard,
        entries_per_turn: int = ENTRIES_PER_TURN,
    ) -> None:
        self._redis = client
        self._database = database
        self._note = note
        self._marked = marked
        self._entries_per_turn = entries_per_turn
        self._watermark = Watermark(client)
        self._rollup = Rollup(database)

    def turn(self) -> int:
        """Move waiting entries, up to a bound; return how many entries left the streams: 0 when all are empty."""
        entries = self._read()
        if entries:
            self._trim(entries, self._book(entries))
        return len(entries)

    def _read(self) -> list[Entry]:
        """Return the first entries of every stream, more from longer streams, in the order in which they were added."""
        after = dict.fromkeys(STREAMS, "0-0")
        found: list[Entry] = []
        while after and len(found) < self._entries_per_turn:
            most = max(1, (self._entries_per_turn - len(found)) // len(after))
            some_of_each = next_entries(self._redis, after, most)
            read = [Entry(stream, *entry) for stream, some in some_of_each for entry in some]
            found += read
            counts = Counter(entry.stream for entry in read)
            after = {entry.stream: entry.id for entry in read if counts[entry.stream] == most}
        return sorted(found, key=Entry.order)

    def _book(self, entries: Sequence[Entry]) -> int:
        """Book entries; return the number of the chain's last record, which is committed."""
        carried = [(entry, record_in(entry)) for entry in entries]
        records = [(entry, found) for entry, found in carried if not isinstance(found, Malformed)]
        dead = [found for _, found in carried if isinstance(found, Malformed)]
        threads = {record["id"]: found for entry, record in records if (found := threads_in(entry))}
        with self._database.write() as connection:
            booked = book(connection, [record for _, record in records])
            self._rollup.follow(connection, booked)
            keep_threads(connection, threads, booked.appended)
            self._watermark.rise(booked)
            dead += [
                Malformed(records[place][0], "the book has another record of this id") for place in booked.conflicting
            ]
            dead += [Malformed(records[place][0], "the records of its time are dropped") for place in booked.dropped]
            keep_dead_letters(connection, dead)
        self._marked({bucket: last for bucket, (_, last) in booked.buckets.items()})
        self._note(booked.appended)
        for letter in dead:
            log.error("Entry %s of %s is set aside: %s.", letter.entry.id, letter.entry.stream, letter.reason)
        return booked.after

    def _trim(self, entries: Sequence[Entry], booked: int) -> None:
        by_stream = groupby(sorted(entries, key=lambda entry: entry.stream), key=lambda entry: entry.stream)
        with translated(), self._redis.pipeline(transaction=False) as batch:
            self._watermark.confirm(booked, batch)  # first: what is removed is never unaccounted for
            for stream, read in by_stream:
                batch.xdel(stream, *(entry.id for entry in read))
            batch.execute()
