"""The queries on the book. A result longer than a page is read page by page, each in a short transaction."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, tuple_

from gateway.errors import BadRequest
from gateway.ledger.book.chain import MAIN
from gateway.ledger.cursors import NoCursor, cursor_of, position_of
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS, VALUES_MOST, AnyRow, batches, record_of
from gateway.ledger.tables import usage_records
from pricing.usage import FIELDS, UsageRecord

DAY_MS = 86_400_000
PAGE = 1000
CUSTOMERS_AT_ONCE = 100
HALF = 2**27

MANY = 10_000_000
"""More records than can be booked during a query."""

OF_CALLS = ("usage", "correction")
"""The kinds of records that count in a window."""

Position = tuple[int, str]
"""The position of a record in the order of reading: its (time, id)."""

book = usage_records.c


@dataclass(frozen=True, slots=True)
class Span:
    """Selects records: of a customer or of all, with ``since`` ≤ time < ``until``, in ms; None is no bound."""

    customer: str | None = None
    since: int | None = None
    until: int | None = None
    end_user: str | None = None
    """Only records of this end user."""
    kind: str | None = None
    tier: str | None = None
    key_id: str | None = None

    def conditions(self, after: Position | None = None) -> list[ColumnElement[bool]]:
        """Return the conditions on a record of the span that comes after a position.

        They have one lower bound, the later of the two: given both, SQLite may use the earlier bound and pass over all
        rows between them.
        """
        conditions = self.but_for_time()
        if after is not None and after[0] >= (self.since or 0):
            conditions.append(tuple_(book.time, book.id) > tuple_(*after))
        elif self.since is not None:
            conditions.append(book.time >= self.since)
        if self.until is not None:
            conditions.append(book.time < self.until)
        return conditions

    def but_for_time(self) -> list[ColumnElement[bool]]:
        """Return the conditions on a record of the span, without the bounds of time."""
        wanted = {"customer": self.customer, "end_user": self.end_user, "kind": self.kind, "tier": self.tier}
        wanted["key_id"] = self.key_id
        return [book[name] == value for name, value in wanted.items() if value is not None]


EVERYTHING = Span()

IS_INCLUDED = book.conversation_is_included.is_(True)
"""Whether a record states that a subscription includes the conversation that it began."""

IS_SILENT = and_(
    book.billed_output_tokens > 0,
    book.conversation.is_not(None),
    book.conversation_cap_tokens.is_(None),
    book.conversation_is_included.is_(None),
)
"""Whether a record could have begun a conversation and is too old to state whether that conversation was included."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, oldest first, and where the next page begins; None after the last."""

    records: list[UsageRecord]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over the calls of a window: billed output tokens and charges, corrections included."""

    tokens: int = 0
    charge_nanousd: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over records, to be compared with other counts of the same calls."""

    records: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    billed_output_tokens: int = 0
    charge_nanousd: int = 0


def usage_page(database: Database, span: Span, *, limit: int, cursor: str | None = None) -> Page:
    """Return a page of usage records, oldest first by (time, id).

    Raises:
        BadRequest: ``cursor`` is not a cursor of this gateway.
    """
    after = None if cursor is None else _position(cursor)
    rows = _page(database, COLUMNS, span, after, limit + 1)
    records = [record_of(row) for row in rows[:limit]]
    has_more = len(rows) > limit
    return Page(records, cursor_of(records[-1]["time"], records[-1]["id"]) if has_more else None)


def usage_records_in(database: Database, span: Span, page: int = PAGE) -> Iterator[UsageRecord]:
    """Yield usage records, oldest first by (time, id), holding one page of them in memory."""
    return (record_of(row) for row in rows_in(database, COLUMNS, span, page))


def rows_in(
    database: Database, columns: Sequence[ColumnElement[Any]], span: Span, page: int = PAGE
) -> Iterator[AnyRow]:
    """Yield rows of some columns, oldest first by (time, id); ``time`` and ``id`` must be among the columns."""
    after: Position | None = None
    while rows := _page(database, columns, span, after, page):
        yield from rows
        after = rows[-1].time, rows[-1].id


def calls_in(customer: Any, start: Any, end: Any, upto: int | None = None, of: Any = book) -> list[ColumnElement[bool]]:
    """Return the conditions on a record that counts in a customer's window, with ``start`` ≤ time < ``end``.

    A subscription's fee and a credit are not calls: they count in no window. ``upto`` leaves out records that were
    booked after the record with this number.
    """
    conditions = [of.customer == customer, of.time >= start, of.time < end, of.kind.in_(OF_CALLS)]
    return conditions if upto is None else [*conditions, of.seq <= upto]


def whole_sum(column: ColumnElement[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return the sums of the high and of the low digits of a column, from which ``summed`` makes the exact sum.

    SQLite's own sum fails where it passes 2^63; every amount is below 2^53.
    """
    return func.sum(column // HALF), func.sum(column % HALF)


def sums_of(records: Any) -> tuple[ColumnElement[Any], ...]:
    """Return the sums of a window's records, tokens, then charges, each in two halves."""
    return (*whole_sum(records.billed_output_tokens), *whole_sum(records.charge_nanousd))


def summed(high: Any, low: Any) -> int:
    """Return the sum of two halves. PostgreSQL sums whole numbers to a decimal, and a sum over no records is null."""
    return int(high or 0) * HALF + int(low or 0)


def spent_in(database: Database, periods: Mapping[str, tuple[int, int]], upto: int | None = None) -> dict[str, Spent]:
    """Return the sums of each customer's calls in its own period, in ms: the ``used`` of a lost Redis' windows.

    ``upto`` leaves out records that were booked after the record with this number.
    """
    spent: dict[str, Spent] = {}
    for some in batches(periods.items(), CUSTOMERS_AT_ONCE):
        with database.read() as connection:
            for customer, (start, end) in some:
                row = connection.execute(select(*sums_of(book)).where(*calls_in(customer, start, end, upto))).one()
                spent[customer] = Spent(summed(row[0], row[1]), summed(row[2], row[3]))
    return spent


def newest_times(database: Database, customers: Iterable[str], upto: int | None = None) -> dict[str, int]:
    """Return the time, ms, of the latest record of each of these customers; customers without records are left out.

    ``upto`` leaves out records that were booked after the record with this number.
    """
    found: dict[str, int] = {}
    latest = select(book.time).order_by(book.time.desc()).limit(1)
    if upto is not None:
        latest = latest.where(book.seq <= upto)
    for some in batches(customers, CUSTOMERS_AT_ONCE):
        with database.read() as connection:
            for customer in some:
                newest = connection.execute(latest.where(book.customer == customer)).scalar_one_or_none()
                if newest is not None:
                    found[customer] = int(newest)
    return found


def tokens_by_end_user(
    database: Database, customer: str, start: int, end: int, upto: int | None = None
) -> dict[str | None, int]:
    """Return the billed output tokens of each of a customer's end users in the calls of one period.

    ``upto`` leaves out records that were booked after the record with this number.
    """
    columns = (book.end_user, *whole_sum(book.billed_output_tokens))
    query = select(*columns).where(*calls_in(customer, start, end, upto)).group_by(book.end_user)
    with database.read() as connection:
        return {row[0]: summed(row[1], row[2]) for row in connection.execute(query).all()}


def begun_in(database: Database, customer: str, start: int, end: int, upto: int | None = None) -> int:
    """Return how many of a customer's conversations in one period its subscription included, as ``begun`` does."""
    with database.read() as connection:
        return begun(connection, customer, start, end, upto)


def calls_after(database: Database, customer: str, start: int, end: int, after: int) -> list[UsageRecord]:
    """Return the records of a customer's window that were booked after the record with the number ``after``."""
    # The limit keeps the database from searching by customer, through all records of the period.
    late = select(usage_records).where(book.chain == MAIN, book.seq > after).order_by(book.seq).limit(MANY).subquery().c
    query = select(*(late[field] for field in FIELDS)).where(*calls_in(customer, start, end, of=late))
    with database.read() as connection:
        return [dict(zip(FIELDS, row, strict=True)) for row in connection.execute(query)]


def booked_among(database: Database, ids: Sequence[str], upto: int) -> list[str]:
    """Return the ids of those records that are among the book's records up to the number ``upto``."""
    query = select(book.id).where(book.seq <= upto)
    with database.read() as connection:
        return [
            name
            for some in batches(ids, VALUES_MOST)
            for name in connection.execute(query.where(book.id.in_(some))).scalars()
        ]


def begun(connection: Connection, customer: str, start: int, end: int, upto: int | None = None) -> int:
    """Return how many of a customer's conversations in one period its subscription included, by records up to ``upto``.

    Newer records state this. Older records show which conversations had their first output token in the period: a
    conversation lasts a day at most, so a conversation that began earlier has a record in the day before the period.
    """
    stated = select(func.count()).where(*calls_in(customer, start, end, upto), IS_INCLUDED)
    return int(connection.execute(stated).scalar_one()) + begun_in_silence(connection, customer, start, end, upto)


def begun_in_silence(connection: Connection, customer: str, start: int, end: int, upto: int | None = None) -> int:
    """Return how many conversations were begun by records that do not state whether the conversation is included."""
    first = func.min(book.time)
    silent = (
        select(book.conversation)
        .where(*calls_in(customer, start - DAY_MS, end, upto), IS_SILENT)
        .group_by(book.conversation)
        .having(first >= start)
    )
    return int(connection.execute(select(func.count()).select_from(silent.subquery())).scalar_one())


def settled_since(
    database: Database, customers: Sequence[str], since: int, page: int = 10 * PAGE
) -> Iterator[tuple[str, str, int, int]]:
    """Yield id, customer, admission time and charge of some customers' records from ``since`` on, a page in memory."""
    columns = (book.id, book.customer, book.time, book.charge_nanousd)
    query = select(*columns).where(book.time >= since).order_by(book.customer, book.time, book.id).limit(page)
    for some in batches(customers, CUSTOMERS_AT_ONCE):
        left = set(some)
        while left:
            with database.read() as connection:
                rows = connection.execute(query.where(book.customer.in_(left))).all()
            yield from ((row.id, row.customer, row.time, row.charge_nanousd) for row in rows)
            if len(rows) < page:
                break
            left -= {row.customer for row in rows}
            last = rows[-1]  # its customer's other rows are read separately, else each page would pass over all before
            while rest := _page(database, columns, Span(last.customer), (last.time, last.id), page):
                yield from ((row.id, row.customer, row.time, row.charge_nanousd) for row in rest)
                last = rest[-1]


def lately_counted(database: Database, most: int) -> list[tuple[float, float]]:
    """Return the tokens of a choice, and the seconds they took, for some of the latest ``most`` records, oldest first.

    These are the records whose output the upstream counted while the caller listened.
    """
    latest = select(book.kind, book.usage_source, book.output_tokens, book.choices, book.duration_ms)
    latest = latest.order_by(book.time.desc(), book.id.desc()).limit(most)
    with database.read() as connection:
        rows = connection.execute(latest).all()
    return [
        (row.output_tokens / max(row.choices, 1), row.duration_ms / 1000)
        for row in reversed(rows)
        if row.kind == "usage" and row.usage_source == "upstream" and row.duration_ms is not None
    ]


def totals(database: Database, span: Span = EVERYTHING) -> Totals:
    """Return the sums over the records in a span."""
    fields = ("input_tokens", "output_tokens", "billed_output_tokens", "charge_nanousd")
    columns = (book.time, book.id, *(book[field] for field in fields))
    records, sums = 0, [0] * len(fields)
    for _time, _id, *values in rows_in(database, columns, span):
        records += 1
        sums = list(map(operator.add, sums, values))
    return Totals(records, *sums)


def _page(
    database: Database, columns: Sequence[ColumnElement[Any]], span: Span, after: Position | None, limit: int
) -> Sequence[AnyRow]:
    query = select(*columns).where(*span.conditions(after)).order_by(book.time, book.id).limit(limit)
    with database.read() as connection:
        return connection.execute(query).all()


def _position(cursor: str) -> Position:
    try:
        time, record_id = position_of(cursor, int, str)
    except NoCursor as error:
        raise BadRequest("This cursor is not one that a list gave out.", param="cursor") from error
    return time, record_id
