"""Two processes that find the same old month at once: one marks it, and its totals are kept once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import insert, select, text

from gateway.billing.retention import Retention
from gateway.billing.totals import totals_by
from gateway.ledger.billing.counted import Month
from gateway.ledger.billing_tables import closings, dropped_months
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.tables import customers
from tests.gateway.billing.test_retention import NOW, booked, calls
from tests.gateway.ledger.records import customer_row
from tests.waiting import until

JANUARY = "2026-01"
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query LIKE 'SELECT closings.month%FOR UPDATE'"
)


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Database]:
    """A customer whose January is old enough to be dropped, and enough newer records to seal it."""
    database = Database(postgres_url)
    database.migrate()
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row("cus_utc")])
    days = [f"{month}-{day:02d}T12:00:00" for month in (JANUARY, "2026-05") for day in range(1, 19)]
    booked(database, calls("cus_utc", *days), late_every=None)
    yield database
    database.close()


def waiting(ledger: Database) -> int:
    """Return how many processes wait for the lock of a closed month."""
    with ledger.read() as connection:
        return int(connection.execute(WAITING).scalar_one())


def test_a_month_that_two_find_at_once_is_marked_once(ledger: Database) -> None:
    """Both have added it up before either marks it: whoever comes second finds it marked."""
    before = totals_by(ledger, "kind", Span(), Month(ledger, JANUARY))
    with ThreadPoolExecutor(2) as both:
        with ledger.write() as connection:
            connection.execute(select(closings.c.month).with_for_update()).all()
            marked = [both.submit(Retention(ledger, lambda: NOW, 62).turn) for _ in range(2)]
            until(lambda: waiting(ledger) == 2)
        count = sum(one.result() for one in marked)

    assert totals_by(ledger, "kind", Span(), Month(ledger, JANUARY)) == before
    with ledger.read() as connection:
        months = connection.execute(select(dropped_months.c.month)).scalars().all()
    assert count == len(months) == len(set(months)) == 2, "January, and February without a record"
