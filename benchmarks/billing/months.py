"""The cost of billing: CPU µs a row to append, add up, invoice and export a million mixed rows, and their memory.

python -m benchmarks.billing.months                     a million rows in SQLite, as a gateway settles them
python -m benchmarks.billing.months --order none        in no order of time
python -m benchmarks.billing.months --rows 100000 --database postgresql://…     a server on this machine: its CPU counts, too

The rows have all kinds and endings, of thirty customers in thirty zones, over three months: a leap month and two in
which clocks are set. Each customer upgrades in the middle of each month, and a tenth of the rows comes after its month
was closed. It ends with 1 unless the sums by record, conversation, customer, tier, key, end user, day, kind, menu
version and invoice are the same whole numbers, equal to those counted as the rows were made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from benchmarks.billing.mixed_rows import LATE, MONTHS, SUMMED, Plan, Witness, planned, prepare, rows
from benchmarks.gateway.processes import cpu_of_tree_s
from gateway.billing.invoices import Issuer, drafted, finalised
from gateway.billing.totals import FIELD_OF, totals_by
from gateway.exports.formats import FORMATS
from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.billing.counted import Month, records_counted_in
from gateway.ledger.billing.final_invoices import Terms, invoice_of
from gateway.ledger.book.appender import append
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import WRITER_CACHE_KB, Database
from gateway.ledger.read.queries import Span

CLOSED = ("2024-01", *MONTHS)
AT_ONCE = 2_000
ISSUER = Issuer((), (), "", "USD")
TOTALLED = ("calls", "conversations", *SUMMED[:-1])


class Meter:
    """CPU time of this process, and of a database server on this machine."""

    def __init__(self, database: Database) -> None:
        self._server: int | None = None
        if not database.is_sqlite:
            with database.read() as connection:
                backend = connection.execute(select(func.pg_backend_pid())).scalar_one()
            fields = Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()
            self._server = int(fields[1])
        self._looking_s = 0.0

    def spent_s(self) -> tuple[float, float]:
        """Return the CPU seconds so far: of this process, without this method's own, and of the server."""
        if self._server is None:
            return time.process_time(), 0.0
        began = time.process_time()
        server_s = cpu_of_tree_s(self._server)
        self._looking_s += time.process_time() - began
        return time.process_time() - self._looking_s, server_s

    def timed(self, label: str, count: int, work: Callable[[], Any]) -> Any:
        """Do some work, print its CPU time a row and its additional peak memory, and return its result."""
        before_mb = reset_peak_mb()
        start = self.spent_s()
        result = work()
        spent = [(now - before) / count * 1e6 for now, before in zip(self.spent_s(), start, strict=True)]
        self.show(label, spent, peak_mb() - before_mb)
        return result

    def show(self, label: str, spent: list[float], added_mb: float) -> None:
        server = "" if self._server is None else f" + {spent[1]:6.1f} of the server"
        print(f"{label:<34} {spent[0]:6.1f}{server} CPU µs a row   {added_mb:+6.1f} MB at the most", flush=True)


def reset_peak_mb() -> float:
    """Reset the peak memory of this process; return its current memory, MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mb()


def peak_mb() -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def fill(
    database: Database, plan: Plan, meter: Meter, witness: Witness | None = None, *, closes: bool = True
) -> list[float]:
    """Append the rows and close the months after nine tenths of them; return the CPU s of appending."""
    spent, late = [0.0, 0.0], len(plan) * (LATE - 1) // LATE
    for first in range(0, len(plan), AT_ONCE):
        batch = list(rows(plan[first : first + AT_ONCE], first))
        began = meter.spent_s()
        append(database, batch)
        spent = [sum(times) for times in zip(spent, meter.spent_s(), (-seconds for seconds in began), strict=True)]
        if witness is not None:
            for record in batch:
                witness.see(record)
        if closes and first <= late < first + AT_ONCE:
            for month in CLOSED:
                with database.write() as connection:
                    close(connection, list(months_of(database, month)), 0)
    return spent


def months(database: Database) -> Iterator[Month]:
    yield from (Month(database, f"2024-{number:02d}") for number in range(1, 8))


def grouped(database: Database, by: str) -> dict[Any, dict[str, int]]:
    """Return the sums over all months of each group of the totals by one field."""
    groups: dict[Any, dict[str, int]] = {}
    for month in months(database):
        for group in totals_by(database, by, Span(), month):
            sums = groups.setdefault(group[by], dict.fromkeys(TOTALLED, 0))
            groups[group[by]] = {name: amount + group[name] for name, amount in sums.items()}
    return groups


def summed(groups: dict[Any, dict[str, int]]) -> dict[str, int]:
    """Return the sums over all groups."""
    return {name: sum(group[name] for group in groups.values()) for name in TOTALLED}


def invoiced(database: Database) -> tuple[int, int]:
    """Return the total of the invoices of all months and customers, and the prepaid credit that they add.

    Invoices of closed months are made final, the others are drafts. Lines add up to totals, and prepaid credit from
    month to month.
    """
    total, added, prepaid_left = 0, 0, dict[str, int]()
    for month in months(database):
        for customer_month in month.customers.values():
            terms = Terms(database)
            if customer_month.is_closed:
                finalised(database, customer_month, ISSUER, terms, lambda: 0)
                body = invoice_of(database, f"inv_{customer_month.month}_{customer_month.customer}")
            else:
                body = drafted(database, customer_month, ISSUER, terms)
            if body is None:
                continue
            assert sum(line["amount_nanousd"] for line in body["lines"]) == body["total_nanousd"]
            total += body["total_nanousd"]
            if (prepaid := body["prepaid"]) is not None:
                assert prepaid["before_nanousd"] == prepaid_left.get(customer_month.customer, 0)
                assert prepaid["drawn_nanousd"] + prepaid["due_nanousd"] == body["total_nanousd"]
                prepaid_left[customer_month.customer] = prepaid["left_nanousd"]
                added += prepaid["added_nanousd"]
    return total, added


def exported(database: Database) -> int:
    size = 0
    for month in months(database):
        size += sum(map(len, FORMATS["jsonl"].encode(records_counted_in(database, Span(), month))))
    return size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--order", choices=("settled", "none"), default="settled")
    parser.add_argument("--append", action="store_true", help="append, and nothing else")
    parser.add_argument("--database", help="an empty database; else SQLite in a directory of its own")
    arguments = parser.parse_args()
    return measure_billing(
        arguments.rows, arguments.database, is_settled=arguments.order == "settled", appends_only=arguments.append
    )


def measure_billing(count: int, url: str | None = None, *, is_settled: bool = True, appends_only: bool = False) -> int:
    """Print the cost of ``count`` rows; return 0 if all ways to add them up agree, else 1."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(url or f"sqlite:///{Path(directory) / 'ledger.sqlite'}", cache_kb=WRITER_CACHE_KB)
        database.migrate()
        prepare(database)
        meter, witness = Meter(database), Witness()
        spent = fill(database, planned(count, is_settled=is_settled), meter, witness)
        meter.show("append", [spent_s / count * 1e6 for spent_s in spent], 0.0)
        agrees = appends_only or is_the_same(database, meter, count, witness)
        database.close()
    if appends_only:
        return 0
    print(f"{count} rows: {'the same sums by all of them' if agrees else 'THE SUMS DIFFER'}: {witness.whole}")
    return 0 if agrees else 1


def is_the_same(database: Database, meter: Meter, count: int, witness: Witness) -> bool:
    """Print the cost of reading the rows; return whether all their sums equal the witness's."""
    groups_by = {by: meter.timed(f"totals by {by}", count, partial(grouped, database, by)) for by in FIELD_OF}
    whole = summed(groups_by["kind"])
    agrees = all(summed(groups) == whole for groups in groups_by.values())
    agrees &= all(whole[name] == witness.whole[name] for name in SUMMED[:-1])
    for by, field in FIELD_OF.items():
        charges = {value: group["charge_nanousd"] for value, group in groups_by[by].items()}
        agrees &= field is None or charges == witness.by[field]
    total, added = meter.timed("invoices, each line", count, partial(invoiced, database))
    agrees &= total == witness.whole["charge_nanousd"] and added == witness.whole["prepaid_nanousd"]
    meter.timed("export, JSON Lines", count, partial(exported, database))
    recounted = Witness()
    for record in records_counted_in(database, Span()):
        recounted.see(record)
    agrees &= recounted.whole == witness.whole and recounted.conversations == witness.conversations
    is_sound: bool = meter.timed("recount", count, partial(verify_chain, database)).is_sound
    return agrees and is_sound


if __name__ == "__main__":
    sys.exit(main())
