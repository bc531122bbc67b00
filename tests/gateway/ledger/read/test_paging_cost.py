"""Reading a long span page by page looks at each row once: a page near the end costs no more than the first one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import Connection, event, insert

from gateway.ledger.billing.counted import counted_in
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, rows_in, settled_since, usage_page
from gateway.ledger.sums.market_rows import lengths_in
from gateway.ledger.sums_tables import sums_lengths
from gateway.ledger.tables import usage_records
from pricing.estimate.observations.conversations import Sums
from tests.gateway.ledger.records import NOON, record

ROWS, PAGE = 3_000, 10
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
def ledger(sqlite_url: str) -> Iterator[tuple[Database, list[int]]]:
    """A ledger with three thousand records of one customer, and a count of the steps that SQLite takes, in thousands."""
    with closing(Database(sqlite_url)) as database:
        database.migrate()
        append(database, [record(number) for number in range(ROWS)])
        with database.read() as connection:
            engine = connection.engine
        steps = [0]

        def step() -> int:
            steps[0] += 1
            return 0

        def count(connection: Connection) -> None:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.set_progress_handler(step, 1_000)

        event.listen(engine, "begin", count)
        yield database, steps


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("customer", [None, "cus_acme"])
def test_each_row_is_looked_at_once(ledger: tuple[Database, list[int]], reading: str, customer: str | None) -> None:
    database, steps = ledger

    read = READINGS[reading](database, Span(customer, NOON, NOON + 10 * ROWS))

    assert read == ROWS
    assert steps[0] * 1_000 < ROWS * STEPS_OF_A_ROW


def test_a_cursor_from_before_the_span_begins_with_the_span(ledger: tuple[Database, list[int]]) -> None:
    """A cursor of another list leads to no record that is not in the span."""
    database, _ = ledger
    cursor = usage_page(database, Span(), limit=1, cursor=None).next_cursor

    found = usage_page(database, Span(None, NOON + 50), limit=1, cursor=cursor)

    assert [one["time"] for one in found.records] == [NOON + 50]


def test_each_row_of_the_lengths_of_a_market_is_looked_at_once(ledger: tuple[Database, list[int]]) -> None:
    database, steps = ledger
    with database.write() as connection:
        row = {"menu_version": "m1", "tier": "t1", "observed": 1, "censored": 0}
        connection.execute(insert(sums_lengths), [{**row, "week": 9, "tokens": number} for number in range(ROWS)])
    steps[0] = 0

    found = list(lengths_in(database, 9, Sums(), PAGE))

    assert [row[2] for row in found] == list(range(ROWS))
    assert steps[0] * 1_000 < ROWS * STEPS_OF_A_ROW
