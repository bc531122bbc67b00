"""The cost of one customer's invoice of a month: CPU µs a row, memory, and how often the database reads each row.

python -m benchmarks.billing.invoice                     a million rows in SQLite
python -m benchmarks.billing.invoice --rows 100000 --database postgresql://…     a server on this machine: its CPU counts, too

The draft and the final invoice each read the month once, prepaid credit included: PostgreSQL counts the rows that it
fetches, SQLite the steps of its virtual machine, several for each row. It ends with 1 unless the invoice equals the
sums that were counted as the rows were made, and no row is read twice.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, event, text

from benchmarks.billing.mixed_rows import Plan, Witness, prepare
from benchmarks.billing.months import ISSUER, Meter, fill
from gateway.billing.invoices import drafted, finalised
from gateway.ledger.billing.closings import bounds_of, close, months_of
from gateway.ledger.billing.final_invoices import Terms, invoice_of
from gateway.ledger.database import WRITER_CACHE_KB, Database
from tests.gateway.ledger.records import ZONES

MONTH, CUSTOMER = "2024-03", "cus_00"
STEPS_MOST = 150
"""The most steps of SQLite's virtual machine for a row that is read once: several for each of its columns."""

FETCHED = text(
    "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'usage_records'"
)


class Readings:
    """How much a database has read so far: rows of the book in PostgreSQL, thousands of steps in SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._steps = 0
        if database.is_sqlite:
            with database.read() as connection:
                engine = connection.engine
            event.listen(engine, "begin", self._count)

    def so_far(self) -> int:
        if self._database.is_sqlite:
            return self._steps * 1_000
        with self._database.read() as connection:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
        with self._database.read() as connection:
            return int(connection.execute(FETCHED).scalar_one())

    def _count(self, connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(self._step, 1_000)

    def _step(self) -> int:
        self._steps += 1
        return 0


def planned_month(count: int) -> Plan:
    """Return rows of one customer, spread over one month, in the order of time."""
    start, end = bounds_of(MONTH, ZONES[0])
    times = np.linspace(start, end - 10, count).astype(np.int64)
    return np.stack([np.zeros_like(times), times, np.zeros_like(times)], axis=1)


def measure_invoice(count: int, url: str | None = None) -> int:
    """Print the cost of an invoice of ``count`` rows; return 0 if it is right and reads each row once, else 1."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(url or f"sqlite:///{Path(directory) / 'ledger.sqlite'}", cache_kb=WRITER_CACHE_KB)
        database.migrate()
        prepare(database)
        meter, witness, terms = Meter(database), Witness(), Terms(database)
        fill(database, planned_month(count), meter, witness, closes=False)
        readings, agrees = Readings(database), True

        def timed(label: str, work: Callable[[], Any]) -> Any:
            nonlocal agrees
            before = readings.so_far()
            result = meter.timed(label, count, work)
            reads_per_row = (readings.so_far() - before) / count
            print(
                f"{'':<34} {reads_per_row:6.1f} {'steps' if database.is_sqlite else 'rows fetched'} a row", flush=True
            )
            agrees &= reads_per_row < (STEPS_MOST if database.is_sqlite else 1.5)
            return result

        [month] = months_of(database, MONTH, CUSTOMER)
        draft = timed("draft", lambda: drafted(database, month, ISSUER, terms))
        with database.write() as connection:
            close(connection, [month], 0)
        [month] = months_of(database, MONTH, CUSTOMER)
        timed("close, and make final", lambda: finalised(database, month, ISSUER, terms, lambda: 0))
        final = invoice_of(database, draft["id"])
        agrees &= final is not None and all(final[name] == draft[name] for name in ("lines", "records", "prepaid"))
        agrees &= draft["total_nanousd"] == witness.whole["charge_nanousd"] and draft["records"] == count
        agrees &= draft["prepaid"]["added_nanousd"] == witness.whole["prepaid_nanousd"]
        database.close()
    print(f"{len(draft['lines'])} lines of {count} rows: {'right' if agrees else 'WRONG'}")
    return 0 if agrees else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", help="an empty database; else SQLite in a directory of its own")
    arguments = parser.parse_args()
    return measure_invoice(arguments.rows, arguments.database)


if __name__ == "__main__":
    sys.exit(main())
