"""The cost of a chain and its proofs: CPU µs a row to append, seal and recount, and CPU ms of a proof, at any length.

python -m benchmarks.billing.proofs [--rows 100000]

Calls are in the order of time, as the bookkeeper has them. The recount is what `tokencap ledger verify` does: rows and
seals, then the running sums of a thousand customers. `docs/verify_proof.py` checks the proofs of the first row,
the last row and a random row; the command ends with 1 unless each is under its seal and the chain adds up.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from gateway.clock import now_ms
from gateway.ledger.book.appender import append
from gateway.ledger.book.proofs import proof_of
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import WRITER_CACHE_KB, Database
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.sums.sum_check import wrong_sums
from gateway.ledger.tables import customers, usage_records
from pricing.usage import UsageRecord
from tests.gateway.ledger.records import customer_row, settled_call

AT_ONCE = 2_000
CUSTOMERS = 1_000
CHECK = Path(__file__).parents[2] / "docs" / "verify_proof.py"


def calls(first: int, count: int) -> Iterator[UsageRecord]:
    for number in range(first, first + count):
        record = settled_call(number, customer=f"cus_{number % CUSTOMERS:04d}", conversation=f"c{number // 5}")
        beside = {"settled": record["time"] + 9, "charge_nanousd": number % 900, "conversation_cap_tokens": 4_000}
        yield record | beside


def fill(database: Database, count: int) -> None:
    sealer = Sealer(database, now_ms)
    for first in range(0, count, AT_ONCE):
        sealer.hear(append(database, list(calls(first, min(AT_ONCE, count - first)))))
        while sealer.turn():
            pass
    while sealer.turn(all_of_it=True):
        pass


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    return work(), time.process_time() - began


def is_proven(database: Database, number: int) -> bool:
    """Return whether the independent script accepts a row's proof; print its output and the CPU time of the proof."""
    with database.read() as connection:
        query = select(usage_records.c.id).where(usage_records.c.chain == "main", usage_records.c.seq == number)
        record_id = connection.execute(query).scalar_one()
    proof, took = timed(lambda: proof_of(database, record_id))
    check = subprocess.run(
        [sys.executable, "-I", CHECK], input=json.dumps(proof), capture_output=True, text=True, check=False
    )
    print(f"{check.stdout.strip() or check.stderr.strip()} ({took * 1e3:.1f} CPU ms)", flush=True)
    return check.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        closing(Database(f"sqlite:///{directory}/ledger.sqlite", cache_kb=WRITER_CACHE_KB)) as database,
    ):
        database.migrate()
        with database.write() as connection:
            names = [f"cus_{number:04d}" for number in range(CUSTOMERS)]
            connection.execute(insert(customers), [customer_row(name) for name in names])
        _, took = timed(lambda: fill(database, arguments.rows))
        print(f"make, append and seal {1e6 * took / arguments.rows:.1f} CPU µs a row", flush=True)
        Rollup(database).bring_up_to_date(now_ms())
        places = (1, arguments.rows, random.Random(5).randint(1, arguments.rows))
        are_proven = [is_proven(database, number) for number in places]
        chain, took = timed(lambda: verify_chain(database))
        wrong, sums_took = timed(lambda: list(wrong_sums(database)))
        print(
            f"recount {1e6 * (took + sums_took) / arguments.rows:.1f} CPU µs a row, {1e6 * sums_took / arguments.rows:.1f} of"
            f" these for the sums; {chain.rows} rows, the first bad row: {chain.bad}; wrong sums: {len(wrong)}"
        )
        return 0 if chain.bad is None and not wrong and all(are_proven) else 1


if __name__ == "__main__":
    sys.exit(main())
