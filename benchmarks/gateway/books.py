"""What a record costs the bookkeeper between the stream and SQLite, without either's server: CPU µs.

python -m benchmarks.gateway.books            least CPU µs of a record
python -m benchmarks.gateway.books --profile  and where in the code it is spent
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice

import orjson

from gateway.clock import now_ms
from gateway.holds import keys
from gateway.ledger.appender import book
from gateway.ledger.database import Database
from gateway.ledger.entries import Entry, record_in
from pricing.usage import UsageRecord

ROUNDS, RECORDS = 10, 2_000
SETTLED: UsageRecord = {
    **{"kind": "usage", "corrects": None, "customer": "cus_0123456789abcdef01234567"},
    **{"key_id": "key_0123456789abcdef01234567", "tier": "all", "tier_chosen": None, "menu_version": "v1"},
    **{"endpoint": "/v1/chat/completions", "model": "aligned-1", "stream": False, "choices": 1},
    **{"input_tokens": 12, "cached_tokens": 0, "output_tokens": 1, "reasoning_tokens": 0, "billed_output_tokens": 1},
    **{"cap_tokens": 4096, "requested_tokens": None, "finish": "complete", "usage_source": "upstream"},
    **{"ttft_ms": 3, "duration_ms": 9, "currency": "USD", "client_request_id": None, "end_user": None},
    **{"input_source": "upstream"},
}


def entries() -> Iterator[Entry]:
    """Yield what a stream holds, each entry a call of its own."""
    begun = now_ms()
    for number in count():
        name = f"req_{number:032x}"
        record = {**SETTLED, "id": name, "conversation": name, "time": begun + number}
        fields = {b"record": orjson.dumps(record), b"charge": b"1000"}
        yield Entry(keys.usage("07"), f"{begun + number}-0", fields)


def turn(database: Database, some: list[Entry]) -> None:
    found = [record_in(entry) for entry in some]
    with database.write() as connection:
        book(connection, [one for one in found if isinstance(one, dict)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        database, coming, took = Database(f"sqlite:///{directory}/ledger.sqlite"), entries(), []
        database.migrate()
        for _ in range(ROUNDS):
            some = list(islice(coming, RECORDS))
            before = time.process_time_ns()
            turn(database, some)
            took.append((time.process_time_ns() - before) / RECORDS / 1000)
        print(f"{min(took):.1f} CPU µs a record, at the least of {ROUNDS} rounds of {RECORDS}")
        if given.profile:
            with cProfile.Profile() as profile:
                turn(database, list(islice(coming, RECORDS)))
            pstats.Stats(profile).sort_stats("tottime").print_stats(15)
        database.close()


if __name__ == "__main__":
    main()
