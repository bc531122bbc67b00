"""Keeps the sums that a market is estimated from up to date: adds new records of the book to them.

The sums of a batch of records, the conversations that the batch leaves open and the place in the book up to which it
goes are written in one transaction. After a kill at any point the next run continues from that place; of two concurrent
runs the second finds that the place has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Column, Connection, Table, case, delete, insert, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.database import Database
from gateway.ledger.sums_tables import (
    sums_ages,
    sums_customers,
    sums_excluded,
    sums_going,
    sums_lengths,
    sums_own_lengths,
    sums_pace,
    sums_paced,
    sums_read,
    sums_tiers,
)
from gateway.ledger.tables import chains, usage_records
from pricing.estimate.observations.conversations import IDLE_MS, LONGEST_MS, WEEK_MS, Going, Sums, Watch

PAGE = 1_000
BATCH = 10_000
"""The records of one transaction; they are read in pages."""

KEYS_AT_ONCE = 400
"""The keys in one statement; SQLite before 3.32 takes 999 parameters."""

LATE_MS = IDLE_MS
"""How long after its end a conversation is added to the sums: a call may be settled late."""

TABLES: dict[str, Table] = {
    "lengths": sums_lengths,
    "own_lengths": sums_own_lengths,
    "customers": sums_customers,
    "tiers": sums_tiers,
    "ages": sums_ages,
    "pace": sums_pace,
    "paced": sums_paced,
    "aside": sums_excluded,
}
"""The table of each sum; its columns are those of the key, then those of the amounts."""

book = usage_records.c
NEEDED = (
    *(book.id, book.seq, book.kind, book.time, book.settled, book.customer, book.conversation, book.endpoint),
    *(book.tier, book.tier_chosen, book.menu_version, book.stream, book.output_tokens, book.billed_output_tokens),
    *(book.finish, book.ttft_ms, book.duration_ms, book.usage_source, book.cap_tokens, book.choices),
)
GOING = tuple(field.name for field in fields(Going))


def unheard(_records: int) -> None:
    """Do nothing with a report of progress."""


def bring_up_to_date(
    database: Database, now_ms: int, heard: Callable[[int], object] = unheard, *, batch: int = BATCH
) -> int:
    """Add all records of the book that are not in the sums yet to them; return how many were added.

    Args:
        now_ms: the time by which idle conversations have ended.
        heard: is called after each batch with the number of records added so far.
        batch: records in one transaction.

    Raises:
        MeteringUnavailable: the ledger is unavailable; batches added before stay.
    """
    added = 0
    with database.read() as connection:
        names = list(connection.execute(select(chains.c.chain)).scalars())
    for chain in names:
        while (records := _add_batch(database, chain, batch)) is not None:
            added += records
            heard(added)
        while _close_ended(database, chain, now_ms - LATE_MS):
            pass
    return added


def going_in(database: Database) -> Iterator[Going]:
    """Yield the conversations that may continue, page by page."""
    after: tuple[str, str] | None = None
    key = tuple_(sums_going.c.customer, sums_going.c.conversation)
    while True:
        query = select(sums_going).order_by(sums_going.c.customer, sums_going.c.conversation).limit(PAGE)
        with database.read() as connection:
            rows = connection.execute(query if after is None else query.where(key > tuple_(*after))).all()
        yield from (Going(**row._asdict()) for row in rows)
        if len(rows) < PAGE:
            return
        after = rows[-1].customer, rows[-1].conversation


def _add_batch(database: Database, chain: str, batch: int) -> int | None:
    """Add the next records of a chain; return how many, or None if there are no more."""
    place = _place(database, chain)
    records = _records(database, chain, place, batch)
    if not records:
        return None
    touched = {(record["customer"], record["conversation"]) for record in records}
    known = _known(database, touched)
    began = min([conversation.first for conversation in known] + [record["time"] for record in records])
    customers = {customer for customer, _ in touched}
    counted, paced = (
        _counted(database, column, customers, since_ms)
        for column, since_ms in (
            (sums_customers.c.conversations, began),
            (sums_paced.c.calls, min(record["time"] for record in records)),
        )
    )
    watch = Watch(known, counted, paced)
    watch.see(records)
    watch.close_ended(watch.latest_ms - LATE_MS)
    with database.write() as connection:
        if not _is_at(connection, chain, place):
            return 0
        _write(connection, watch.sums)
        _forget(connection, touched)
        _keep(connection, watch.going.values())
        moved = update(sums_read).where(sums_read.c.chain == chain)
        connection.execute(moved.values(seq=records[-1]["seq"]))
    return len(records)


def _close_ended(database: Database, chain: str, by_ms: int) -> int:
    """Add some of the conversations that have ended to the sums; return how many."""
    last_end, first_end = sums_going.c.last + IDLE_MS, sums_going.c.first + LONGEST_MS
    over = or_(sums_going.c.last <= by_ms - IDLE_MS, sums_going.c.first <= by_ms - LONGEST_MS)
    place = _place(database, chain)
    with database.read() as connection:
        by_end = (
            case((last_end < first_end, last_end), else_=first_end),
            sums_going.c.customer,
            sums_going.c.conversation,
        )
        rows = connection.execute(select(sums_going).where(over).order_by(*by_end).limit(PAGE)).all()
    if not rows:
        return 0
    known = [Going(**row._asdict()) for row in rows]
    watch = Watch(
        known,
        _counted(
            database,
            sums_customers.c.conversations,
            {conversation.customer for conversation in known},
            min(conversation.first for conversation in known),
        ),
    )
    ended = watch.close_ended(by_ms)
    with database.write() as connection:
        if _is_at(connection, chain, place):
            _write(connection, watch.sums)
            _forget(connection, [(conversation.customer, conversation.conversation) for conversation in ended])
    return len(ended)


def _place(database: Database, chain: str) -> int:
    with database.read() as connection:
        found = connection.execute(select(sums_read.c.seq).where(sums_read.c.chain == chain)).scalar_one_or_none()
    return found or 0


def _is_at(connection: Connection, chain: str, place: int) -> bool:
    """Return whether the sums still go up to ``place``, and lock it until the transaction ends."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(sums_read).values(chain=chain, seq=0).on_conflict_do_nothing())
    here = select(sums_read.c.seq).where(sums_read.c.chain == chain).with_for_update()
    return bool(connection.execute(here).scalar_one() == place)


def _records(database: Database, chain: str, after: int, most: int) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    while len(records) < most:
        page = min(PAGE, most - len(records))
        query = select(*NEEDED).where(book.chain == chain, book.seq > after).order_by(book.seq).limit(page)
        with database.read() as connection:
            rows = connection.execute(query).mappings().all()
        records += map(dict, rows)
        if len(rows) < page:
            break
        after = rows[-1]["seq"]
    return records


def _known(database: Database, touched: Iterable[tuple[str, Any]]) -> list[Going]:
    known: list[Going] = []
    key = tuple_(sums_going.c.customer, sums_going.c.conversation)
    for chunk in _some(touched):
        with database.read() as connection:
            rows = connection.execute(select(sums_going).where(key.in_(chunk)))
            known += (Going(**row._asdict()) for row in rows)
    return known


def _counted(
    database: Database, column: Column[int], customers: Iterable[str], since_ms: int
) -> dict[tuple[int, str], int]:
    """Return the values of a column for some customers in each week from ``since_ms`` on, by week and customer."""
    counted: dict[tuple[int, str], int] = {}
    of = column.table.c
    query = select(of.week, of.customer, column).where(of.week >= since_ms // WEEK_MS)
    named = sorted(customers)
    for start in range(0, len(named), KEYS_AT_ONCE):
        with database.read() as connection:
            rows = connection.execute(query.where(of.customer.in_(named[start : start + KEYS_AT_ONCE])))
            counted |= {(week, customer): number for week, customer, number in rows}
    return counted


def _forget(connection: Connection, touched: Iterable[tuple[str, Any]]) -> None:
    key = tuple_(sums_going.c.customer, sums_going.c.conversation)
    for chunk in _some(touched):
        connection.execute(delete(sums_going).where(key.in_(chunk)))


def _keep(connection: Connection, going: Iterable[Going]) -> None:
    rows = [{name: getattr(conversation, name) for name in GOING} for conversation in going]
    if rows:
        connection.execute(insert(sums_going), rows)


def _write(connection: Connection, sums: Sums) -> None:
    """Add sums to the sums in the ledger."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    for name, table in TABLES.items():
        rows = getattr(sums, name)
        if not rows:
            continue
        columns = [column.name for column in table.columns]
        statement = dialect.insert(table)
        amounts = [column.name for column in table.columns if not column.primary_key]
        added = {amount: table.c[amount] + statement.excluded[amount] for amount in amounts}
        statement = statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=added)
        connection.execute(
            statement, [dict(zip(columns, (*key, *values), strict=True)) for key, values in sorted(rows.items())]
        )


def _some(keys: Iterable[tuple[str, Any]]) -> Iterator[Sequence[tuple[str, str]]]:
    named = sorted(key for key in keys if key[1] is not None)
    return (named[start : start + KEYS_AT_ONCE] for start in range(0, len(named), KEYS_AT_ONCE))
