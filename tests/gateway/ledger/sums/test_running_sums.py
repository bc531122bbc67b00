"""A period's running sum: which records it has, and what it comes to without some of them."""

from __future__ import annotations

import pytest
from sqlalchemy import insert

from gateway.holds.periods import period_at
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.sums.rollup import Rollup, sums_by_rollup
from gateway.ledger.sums.running_sums import added_up
from gateway.ledger.tables import customers
from tests.gateway.ledger.records import NOON, customer_row, record

START, END = period_at("day", "UTC", NOON)


@pytest.fixture
def ledger(database: Database) -> Database:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row("cus_acme", "day")])
    return database


def test_a_period_has_its_first_moment_and_not_its_end(ledger: Database) -> None:
    times = (START - 1, START, END - 1, END)
    append(ledger, [record(place, time=time, billed_output_tokens=10**place) for place, time in enumerate(times)])

    with ledger.read() as connection:
        assert added_up(connection, ("cus_acme", START, END), len(times))["tokens_low"] == 110


def test_records_already_counted_are_all_left_out(ledger: Database) -> None:
    append(ledger, [record(place, billed_output_tokens=10**place) for place in range(3)])
    Rollup(ledger).bring_up_to_date(NOON)

    with ledger.read() as connection:
        found = sums_by_rollup(connection, "cus_acme", START, END, [record(place)["id"] for place in (0, 2)])
    assert sum(row[0] * int(row[2] or 0) for row in found) == 10
