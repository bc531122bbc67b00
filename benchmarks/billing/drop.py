"""The cost of retention: CPU µs a row to seal, to keep old months' totals, to delete rows and to verify the rest.

python -m benchmarks.billing.drop                     a hundred thousand rows in SQLite
python -m benchmarks.billing.drop --rows 20000 --database postgresql://…

The rows are those of ``benchmarks.billing.months``. Every month of every customer is closed and invoiced, then all rows
that may be dropped are dropped. It ends with 1 unless the totals are as before and the chain verifies.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import update

from benchmarks.billing.mixed_rows import planned, prepare, rows
from benchmarks.billing.months import Meter, fill, grouped, months
from gateway.billing.retention import DAY_MS, Retention
from gateway.ledger.billing.closings import close
from gateway.ledger.billing_tables import closings
from gateway.ledger.book.appender import append
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.sums.rollup import Rollup

LATER_MS = 1_800_000_000_000
"""A moment at which every month of the rows is old."""


def until_done(turn: Callable[[], int]) -> int:
    done = 0
    while processed := turn():
        done += processed
    return done


def close_all(database: Database) -> None:
    for month in months(database):
        with database.write() as connection:
            close(connection, list(month.customers.values()), LATER_MS)
            connection.execute(update(closings).values(is_invoiced=True))


def measure_drop(count: int, url: str | None = None) -> int:
    """Print the cost of dropping ``count`` rows; return 0 if nothing but the rows is gone, else 1."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(url or f"sqlite:///{Path(directory) / 'ledger.sqlite'}")
        database.migrate()
        prepare(database)
        meter = Meter(database)
        fill(database, planned(count, is_settled=False), meter)
        close_all(database)
        sealer = Sealer(database, lambda: LATER_MS)
        meter.timed("seal", count, partial(until_done, partial(sealer.turn, all_of_it=True)))
        append(
            database,
            [{**next(rows(planned(count, is_settled=False)[-1:], count)), "time": LATER_MS, "settled": LATER_MS}],
        )
        sealer.turn(all_of_it=True)  # the rows under the newest seal stay
        Rollup(database).bring_up_to_date(LATER_MS)
        before = grouped(database, "kind")
        meter.timed(
            "keep the totals of months", count, partial(until_done, Retention(database, lambda: LATER_MS, 62).turn)
        )
        deleting = Retention(database, lambda: LATER_MS + DAY_MS, None)
        dropped = meter.timed("delete their rows", count, partial(until_done, deleting.turn))
        recount = meter.timed("verify what is left", count, partial(verify_chain, database))
        is_same = grouped(database, "kind") == before and recount.is_sound and recount.dropped == dropped
        database.close()
    print(f"{dropped} of {count} rows dropped: {'totals as before' if is_same else 'THE TOTALS DIFFER'}")
    return 0 if is_same and dropped else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--database", help="an empty database; else SQLite in a directory of its own")
    arguments = parser.parse_args()
    return measure_drop(arguments.rows, arguments.database)


if __name__ == "__main__":
    sys.exit(main())
