"""What billing costs: CPU µs a row to append, add up, invoice and export a million mixed rows, and the memory it takes.

python -m benchmarks.billing.months                     a million rows in SQLite
python -m benchmarks.billing.months --rows 100000 --database postgresql://…

Rows of all kinds of thirty customers in thirty zones, over the ends of three months of which two have a clock that is
set; a tenth comes after its month was closed. The sums by record, customer, tier, key, end user, day, kind, menu version
and invoice must be the same whole numbers, else it ends with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from gateway.billing.invoices import Issuer, drafted
from gateway.billing.totals import FIELD_OF, SUMMED, totals_by
from gateway.exports.formats import FORMATS
from gateway.ledger.billing.closings import bounds_of, close, months_of
from gateway.ledger.billing.counted import Month, records_counted_in
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.appender import append
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import WRITER_CACHE_KB, Database
from gateway.ledger.read.queries import Span
from gateway.ledger.tables import customers, menus
from pricing.usage import UsageRecord
from tests.gateway.ledger.records import ZONES

MONTHS = ("2024-02", "2024-03", "2024-04")
NAMES = {f"cus_{number:02d}": zone for number, zone in enumerate(ZONES)}
MENU = {
    **{"created": "2024-01-01T00:00:00Z", "currency": "USD", "bill": "conversation"},
    "tiers": [
        {"name": "t1", "price_nanousd": 900, "output_nanousd_per_mtok": 7_777_777, "input_nanousd_per_mtok": 333_333},
        {"name": "t2", "price_nanousd": 1_000},
    ],
}
AT_ONCE = 2_000
ISSUER = Issuer((), (), "", "USD")


def rows(draw: random.Random, count: int, first: int) -> Iterator[UsageRecord]:
    """Yield rows of all kinds and endings around the ends of months."""
    edges = {name: [edge for month in MONTHS for edge in bounds_of(month, zone)] for name, zone in NAMES.items()}
    people = list(NAMES)
    for number in range(first, first + count):
        customer = draw.choice(people)
        kind = draw.choices(("usage", "correction", "fee", "credit"), (90, 5, 2, 3))[0]
        is_call = kind in ("usage", "correction")
        tokens, input_tokens = (draw.randrange(2_000), draw.randrange(4_000)) if is_call else (0, 0)
        tier = draw.choice(("t1", "t2"))
        metered = (
            tokens * 7_777_777 // 1_000_000 + input_tokens * 333_333 // 1_000_000 if tier == "t1" and tokens else 0
        )
        price = {"t1": 900, "t2": 1_000}[tier] if tokens and draw.random() < 0.3 else 0
        charge = price + metered if is_call else draw.choice((5_000, 70)) * (-1 if kind == "credit" else 1)
        at = draw.choice(edges[customer]) + draw.randrange(-86_400_000, 86_400_000)
        yield {
            **{"id": f"req_{number:012d}", "kind": kind, "corrects": None, "time": at, "settled": at + 9},
            **{"customer": customer, "key_id": draw.choice(("key_1", "key_2")), "tier": tier, "tier_chosen": None},
            **{
                "conversation": f"c{draw.randrange(10_000)}" if is_call else None,
                "menu_version": draw.choice(("m1", "m2")),
            },
            **{"endpoint": "/v1/chat/completions", "model": "aligned-1", "stream": True, "choices": 1},
            **{"input_tokens": input_tokens, "cached_tokens": 0, "output_tokens": tokens, "reasoning_tokens": 0},
            **{"billed_output_tokens": tokens, "cap_tokens": 4_096, "requested_tokens": None},
            **{"finish": draw.choice(("complete", "cap", "disconnect", "recovered")) if is_call else None},
            **{
                "usage_source": "upstream" if is_call else None,
                "ttft_ms": 3,
                "duration_ms": 9,
                "charge_nanousd": charge,
            },
            **{"currency": "USD", "client_request_id": None, "end_user": draw.choice((None, "ann", "bob"))},
        }


def prepare(database: Database) -> None:
    empty = {column.name: None for column in customers.columns}
    given = {"name": "c", "tier_since": 0, "status": "active", "period": "month", "overrides": "{}", "created": 0}
    people = [
        {**empty, **given, "id": name, "timezone": zone, "rev": 1, "projected": True} for name, zone in NAMES.items()
    ]
    listed = [
        {"version": name, "source": "manual", "created": 0, "body": json.dumps({**MENU, "version": name})}
        for name in ("m1", "m2")
    ]
    with database.write() as connection:
        connection.execute(insert(customers), people)
        connection.execute(insert(menus), listed)


def fill(database: Database, count: int) -> float:
    """Append the rows and close the months when nine tenths are there; return the CPU s of appending."""
    draw, spent = random.Random(5), 0.0
    late = count * 9 // 10
    for first in range(0, count, AT_ONCE):
        batch = list(rows(draw, min(AT_ONCE, count - first), first))
        began = time.process_time()
        append(database, batch)
        spent += time.process_time() - began
        if first <= late < first + AT_ONCE:
            for month in MONTHS:
                with database.write() as connection:
                    close(connection, list(months_of(database, month)), 0)
    return spent


def timed(what: str, count: int, work: Callable[[], Any]) -> Any:
    began, before = time.process_time(), _memory_mb()
    found = work()
    spent = time.process_time() - began
    print(
        f"{what:<34} {spent / count * 1e6:6.1f} CPU µs a row   {_memory_mb() - before:+6.1f} MB at the most", flush=True
    )
    return found


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def months(database: Database) -> Iterator[Month]:
    yield from (Month(database, f"2024-{number:02d}") for number in range(1, 8))


def sums(database: Database, by: str) -> dict[str, int]:
    found = dict.fromkeys((*SUMMED, "calls", "conversations"), 0)
    for month in months(database):
        for group in totals_by(database, by, Span(), month):
            found = {name: amount + group[name] for name, amount in found.items()}
    return found


def invoiced(database: Database) -> int:
    """Return what the invoices of all months and customers come to."""
    total = 0
    for month in months(database):
        for one in month.customers.values():
            body = drafted(database, one, ISSUER, Terms(database))
            if body is not None:
                assert sum(line["amount_nanousd"] for line in body["lines"]) == body["total_nanousd"]
                total += body["total_nanousd"]
    return total


def exported(database: Database) -> int:
    size = 0
    for month in months(database):
        size += sum(map(len, FORMATS["jsonl"].encode(records_counted_in(database, Span(), month))))
    return size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", help="an empty database; else SQLite in a directory of its own")
    given = parser.parse_args()
    return measure_billing(given.rows, given.database)


def measure_billing(count: int, url: str | None = None) -> int:
    """Print what so many rows cost; return 0 where all sums of them are the same, else 1."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(url or f"sqlite:///{Path(directory) / 'ledger.sqlite'}", cache_kb=WRITER_CACHE_KB)
        database.migrate()
        prepare(database)
        print(f"{'append':<34} {fill(database, count) / count * 1e6:6.1f} CPU µs a row", flush=True)
        found = {by: timed(f"totals by {by}", count, partial(sums, database, by)) for by in FIELD_OF}
        total = timed("invoices, each line", count, partial(invoiced, database))
        timed("export, JSON Lines", count, partial(exported, database))
        whole = dict.fromkeys(SUMMED, 0)
        for record in records_counted_in(database, Span()):
            whole = {name: amount + record[name] for name, amount in whole.items()}
        agree = len({tuple(group.items()) for group in found.values()}) == 1
        agree &= all(found["kind"][name] == amount for name, amount in whole.items())
        agree &= total == whole["charge_nanousd"] and verify_chain(database).is_sound
        database.close()
    print(f"{count} rows: {'the same sums by all of them' if agree else 'THE SUMS DIFFER'}: {whole}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
