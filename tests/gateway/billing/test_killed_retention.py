"""A process that drops records is killed before any statement that writes: nothing is lost, and the next process ends the drop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import closing
from itertools import count
from typing import Any

from sqlalchemy import event, func, insert, select

from gateway.billing.retention import DAY_MS, Retention
from gateway.billing.totals import totals_by
from gateway.ledger.billing.counted import Month
from gateway.ledger.billing_tables import dropped_months
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.sums.rollup import windows_in
from gateway.ledger.tables import customers, usage_records
from tests.gateway.billing.test_retention import MONTHS, NOW, ZONES, booked, history
from tests.gateway.ledger.records import customer_row

RECORDS = 60
WRITES_OF_A_TURN = 8
"""More than a turn has that deletes three records: three deletions, two marks and the commit."""


def drop(url: str, last: int) -> None:
    """Drop all that is due, and kill this process before its write of the number ``last``; a commit is one."""
    numbers = count()

    def write(*_: object) -> None:
        if next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def execute(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            write()

    database = Database(url)
    with database.read() as connection:
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", execute)
    event.listen(engine, "commit", write)
    for now in (NOW, NOW + DAY_MS):
        retention = Retention(database, lambda now=now: now, 62, rows=3)  # type: ignore[misc]
        while retention.turn():
            pass


def kept(url: str) -> Any:
    """Return what no drop changes: totals of every month, windows, and how many rows there are, dropped ones included."""
    with closing(Database(url)) as database:
        found = verify_chain(database)
        totals = [totals_by(database, "kind", Span(), Month(database, month)) for month in MONTHS]
        return totals, list(windows_in(database, sorted(ZONES))), found.is_sound, found.rows


def drop_and_be_killed(url: str) -> None:
    """Drop in one process after another, each killed a write later than the one before, until one comes to its end."""
    before = kept(url)
    for last in count():
        child = os.fork()
        if child == 0:
            drop(url, last)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert kept(url) == before, f"killed before write {last}"
        if not os.WIFSIGNALED(status):
            sys.exit(0 if status == 0 and last > WRITES_OF_A_TURN else 1)


def test_killed_before_any_write_a_drop_loses_nothing_and_goes_on(database: Database, ledger_url: str) -> None:
    """After each kill every total, window and recount is as before; the last process leaves no row of a dropped month."""
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name, timezone=zone) for name, zone in ZONES.items()])
    booked(database, history(12, RECORDS))
    process = multiprocessing.get_context("spawn").Process(target=drop_and_be_killed, args=(ledger_url,))

    process.start()
    process.join()

    assert process.exitcode == 0
    with database.read() as connection:
        months = connection.execute(select(dropped_months.c.rows, dropped_months.c.is_done)).all()
        left = connection.execute(select(func.count()).select_from(usage_records)).scalar_one()
    assert len(months) == 2 * len(ZONES)
    assert all(month.is_done for month in months)
    assert left == RECORDS - sum(month.rows for month in months)
