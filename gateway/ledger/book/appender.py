"""Appends usage records to the ledger's book: each id once, each row linked to the one before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds.store import redis_keys
from gateway.ledger.book.chain import GENESIS, MAIN, Head, hash_of
from gateway.ledger.book.dropped import dropped_until
from gateway.ledger.book.erasure import WORDS, erased_among, without_words
from gateway.ledger.book.late import mark_late
from gateway.ledger.database import Database
from gateway.ledger.rows import (
    COLUMNS,
    VALUES_MOST,
    batches,
    execute_many,
    found_among,
    insert_many,
    record_of,
    without_silence,
)
from gateway.ledger.tables import chains, usage_records, watermarks
from pricing.usage import FIELDS, UsageRecord

# Fields that the book adds to a record, and the time of settling, which may differ in another delivery of the record.
PLACED = frozenset({"settled", "chain", "seq", "prev_hash", "hash"})

# A field that a record leaves out is null, so that it is hashed as it will be read.
NOTHING_SAID: UsageRecord = dict.fromkeys(FIELDS)


@dataclass(frozen=True, slots=True)
class Booked:
    """The result of booking a batch: the new rows, and the places of records that were not booked."""

    appended: list[UsageRecord]
    rows: list[UsageRecord]
    """The new rows with every field, including null fields."""
    conflicting: list[int]
    """Places of records whose id the book has with another content."""
    dropped: list[int]
    """Places of records of a time whose records retention has dropped: nobody can know whether the book had them."""
    before: int
    """The number of the chain's last record before the new rows."""
    after: int
    """The number of the chain's last record with the new rows."""
    buckets: dict[str, tuple[int, int]]
    """The numbers of the last record before and after, of each bucket of the hot state that has new rows."""


def append(database: Database, records: Sequence[UsageRecord], chain: str = MAIN) -> list[UsageRecord]:
    """Append, in one transaction, the records whose id is not in the book yet; return them as booked."""
    with database.write() as connection:
        return book(connection, records, chain).appended


def book(connection: Connection, records: Sequence[UsageRecord], chain: str = MAIN) -> Booked:
    """Append records inside the caller's transaction, in their order.

    The chain's head is locked from here to the end of the transaction, so writers take turns and each sees the
    complete book. A record that was delivered before is left out: delivery at least once plus unique ids is
    exactly once in the book. Words of an erased customer never come into the book, however late a record is.
    """
    head = _locked_head(connection, chain)
    named = {record["customer"] for record in records}
    erased, gone = erased_among(connection, named), dropped_until(connection, named)
    began, seq, last = head.seq, head.seq, head.hash
    known = _already_booked(connection, [record["id"] for record in records])
    appended: list[UsageRecord] = []
    rows: list[UsageRecord] = []
    conflicting: list[int] = []
    dropped: list[int] = []
    for place, record in enumerate(records):
        if is_erased := record["customer"] in erased:
            record = without_words(record)
        if (before := known.get(record["id"])) is not None:
            if not _is_same(record, before, WORDS if is_erased else ()):
                conflicting.append(place)
            continue
        if record["time"] < gone.get(record["customer"], 0):
            dropped.append(place)
            continue
        complete = NOTHING_SAID | record
        seq += 1
        complete["chain"], complete["seq"], complete["prev_hash"] = chain, seq, last
        linked = without_silence(complete)
        del linked["hash"]
        linked["hash"] = complete["hash"] = last = hash_of(linked)
        known[linked["id"]] = linked
        appended.append(linked)
        rows.append(complete)
    if appended:
        insert_records(connection, rows)
        mark_late(connection, appended)
        connection.execute(update(chains).where(chains.c.chain == chain).values(seq=seq, hash=last))
    return Booked(appended, rows, conflicting, dropped, began, seq, _raised(connection, appended))


def insert_records(connection: Connection, rows: Sequence[UsageRecord]) -> None:
    """Insert rows that have every column."""
    insert_many(connection, usage_records, rows)


def _raised(connection: Connection, appended: Sequence[UsageRecord]) -> dict[str, tuple[int, int]]:
    """Store the number of the last record of each bucket; return the number before and the number now."""
    latest = {redis_keys.bucket_of(record["customer"]): record["seq"] for record in appended}
    if not latest:
        return {}
    known = select(watermarks.c.bucket, watermarks.c.seq).where(watermarks.c.bucket.in_(latest))
    before = {row.bucket: row.seq for row in connection.execute(known)}
    rows = [{"bucket": bucket, "seq": seq} for bucket, seq in sorted(latest.items())]
    execute_many(connection, RAISED[connection.dialect.name], rows)
    return {bucket: (before.get(bucket, 0), seq) for bucket, seq in latest.items()}


def _raises(dialect: Any) -> Any:
    statement = dialect.insert(watermarks).values(bucket=bindparam("bucket"), seq=bindparam("seq"))
    return statement.on_conflict_do_update(index_elements=["bucket"], set_={"seq": statement.excluded.seq})


RAISED = {"sqlite": _raises(sqlite), "postgresql": _raises(postgresql)}


def _locked_head(connection: Connection, chain: str) -> Head:
    """Return the chain's head, locked until the transaction ends; a new chain is begun.

    SQLite has no FOR UPDATE and needs none: its transaction is the only writer (BEGIN IMMEDIATE).
    """
    head = select(chains.c.seq, chains.c.hash).where(chains.c.chain == chain).with_for_update()
    row = connection.execute(head).one_or_none()
    if row is None:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        first = dialect.insert(chains).values(chain=chain, seq=0, hash=GENESIS).on_conflict_do_nothing()
        connection.execute(first)
        row = connection.execute(head).one()
    return Head(row.seq, row.hash)


def _already_booked(connection: Connection, ids: Iterable[str]) -> dict[str, UsageRecord]:
    known: dict[str, UsageRecord] = {}
    for booked in batches(found_among(connection, usage_records.c.id, ids), VALUES_MOST):
        rows = connection.execute(select(*COLUMNS).where(usage_records.c.id.in_(booked)))
        known.update((row.id, record_of(row)) for row in rows)
    return known


def _is_same(record: UsageRecord, other: UsageRecord, but_for: Iterable[str]) -> bool:
    fields = (record.keys() | other.keys()) - PLACED - set(but_for)
    return all(record.get(field) == other.get(field) for field in fields)
