"""Reading a long span page by page looks at each row once: a page near the end costs no more than the first one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import insert, text

from benchmarks.billing.invoice import Readings
from gateway.ledger.billing.counted import counted_in
from gateway.ledger.billing_tables import closings
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, rows_in, settled_since, usage_page
from gateway.ledger.sums.market_rows import lengths_in
from gateway.ledger.sums_tables import sums_lengths
from gateway.ledger.tables import usage_records
from pricing.estimate.observations.conversations import Sums
from tests.gateway.ledger.records import NOON, record

ROWS, PAGE = 1_000, 10
STEPS_OF_A_ROW = 400
"""Steps of SQLite's machine: about ten a column that is read."""

book = usage_records.c
COLUMNS = (book.time, book.id, book.customer, book.charge_nanousd)


def by_cursor(database: Database, span: Span) -> int:
    """Read a list as the API does; return how many records there are."""
    count, cursor = 0, None
    while True:
        page = usage_page(database, span, limit=PAGE, cursor=cursor)
        count, cursor = count + len(page.records), page.next_cursor
        if cursor is None:
            return count


READINGS: dict[str, Callable[[Database, Span], int]] = {
    "list": by_cursor,
    "rows": lambda database, span: sum(1 for _ in rows_in(database, COLUMNS, span, PAGE)),
    "rebuild": lambda database, span: sum(
        1 for _ in settled_since(database, ["cus_acme", "cus_none"], span.since or 0, PAGE)
    ),
    "invoice": lambda database, span: sum(1 for _ in counted_in(database, COLUMNS, span, page=PAGE)),
}


@pytest.fixture
def ledger(database: Database) -> tuple[Database, Readings]:
    """A ledger with a thousand records of one customer, and a count of how much is read."""
    append(database, [record(number) for number in range(ROWS)])
    return database, Readings(database)


def know_its_sizes(database: Database) -> None:
    """Let PostgreSQL look at its tables, as it does by itself within a minute."""
    if not database.is_sqlite:
        with database.write() as connection:
            connection.execute(text("ANALYZE"))


def most(database: Database) -> int:
    """Return how much may be read for ROWS rows: of PostgreSQL in rows, one more at the end of each page."""
    return ROWS * STEPS_OF_A_ROW if database.is_sqlite else ROWS * 3 // 2


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("customer", [None, "cus_acme"])
def test_each_row_is_looked_at_once(ledger: tuple[Database, Readings], reading: str, customer: str | None) -> None:
    database, readings = ledger
    know_its_sizes(database)
    before = readings.so_far()

    read = READINGS[reading](database, Span(customer, NOON, NOON + 10 * ROWS))

    assert read == ROWS
    assert 0 < readings.so_far() - before < most(database)


@pytest.mark.parametrize("customer", [None, "cus_acme"])
def test_each_row_that_came_late_is_looked_at_twice_at_most(
    ledger: tuple[Database, Readings], customer: str | None
) -> None:
    """Its place first, then the row: late rows are stored by the moment that they count at, and read by their time."""
    database, readings = ledger
    closed = {"chain": "main", "seq": 0, "timezone": "UTC", "closed": 0, "is_invoiced": True}
    end = NOON + 10 * ROWS
    with database.write() as connection:
        connection.execute(insert(closings).values(customer="cus_acme", month="2025-12", start=0, end=end, **closed))
    late = [  # seven of each millisecond, which pages of ten would part, in the order of neither their times nor their ids
        record(number, time=NOON + number // 7, settled=end + (2 * ROWS - number) // 2)
        for number in range(2 * ROWS, ROWS, -1)
    ]
    append(database, late)
    know_its_sizes(database)
    before = readings.so_far()

    read = [counted.row[1] for counted in counted_in(database, COLUMNS, Span(customer, end, end + ROWS), page=PAGE)]

    assert read == sorted(one["id"] for one in late)
    assert 0 < readings.so_far() - before < 2 * most(database)


def test_a_cursor_from_before_the_span_begins_with_the_span(ledger: tuple[Database, Readings]) -> None:
    """A cursor of another list leads to no record that is not in the span."""
    database, _ = ledger
    cursor = usage_page(database, Span(), limit=1, cursor=None).next_cursor

    found = usage_page(database, Span(None, NOON + 50), limit=1, cursor=cursor)

    assert [one["time"] for one in found.records] == [NOON + 50]


def test_each_row_of_the_lengths_of_a_market_is_looked_at_once(ledger: tuple[Database, Readings]) -> None:
    database, readings = ledger
    with database.write() as connection:
        row = {"menu_version": "m1", "tier": "t1", "observed": 1, "censored": 0}
        connection.execute(insert(sums_lengths), [{**row, "week": 9, "tokens": number} for number in range(ROWS)])
    before = readings.so_far()

    found = list(lengths_in(database, 9, Sums(), PAGE))

    assert [row[2] for row in found] == list(range(ROWS))
    if database.is_sqlite:
        assert 0 < readings.so_far() - before < ROWS * STEPS_OF_A_ROW
