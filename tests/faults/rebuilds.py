"""Processes that rebuild the hot state from a ledger and are killed at random points.

python -m tests.faults.rebuilds --kills 50 --at-once 3    kill 50, and compare the result with an undisturbed rebuild
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis
from sqlalchemy import insert

from gateway.catalog.projector import CatalogProjector
from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.holds.store.projection import Projection
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.recovery.hot_state import Bounds
from gateway.ledger.recovery.recovery import Recovery
from gateway.ledger.tables import api_keys, customers
from tests.gateway.cli.prefork import Request, Started, forks
from tests.gateway.ledger.records import NOON, customer_row, record
from tests.servers import short_directory, valkey_in
from tests.waiting import until

BOUNDS = Bounds(conversation_tokens_max=1_000, lease_ms=60_000, call_ms=600_000, observes=False)
PEOPLE, CALLS = 300, 1_500
NOW = NOON + CALLS
LOCK_S = 1.0
"""How long the lock of a killed process lasts, until another process may go on."""


@dataclass(frozen=True)
class House:
    """A Redis and its ledger."""

    redis_url: str
    ledger_url: str
    client: redis.Redis

    @contextmanager
    def process(self) -> Iterator[Started]:
        """Run a process that ensures the hot state, and yield once it is about to begin."""
        words = ["--ensure", self.redis_url, self.ledger_url]
        request = Request(words, dict(os.environ), str(Path.cwd()), module="tests.faults.rebuilds")
        out, out_end = os.pipe()
        with os.fdopen(out, encoding="utf-8") as lines, Path(os.devnull).open("rb") as null:
            process = forks().start(request, (null.fileno(), out_end, 2))
            os.close(out_end)
            try:
                assert lines.readline() == "asks\n"
                yield process
            finally:
                process.kill()
                process.wait()

    def is_whole(self) -> bool:
        with self.client.pipeline(transaction=False) as batch:
            for bucket in redis_keys.ALL_BUCKETS:
                batch.hget(redis_keys.state(bucket), "generation")
            return None not in batch.execute()

    def commands(self) -> int:
        """Return how many commands the server has processed."""
        return int(cast(Any, self.client.info("stats"))["total_commands_processed"])

    def seen(self) -> dict[str, Any]:
        """Return the whole hot state except the generation of each bucket and the lock of a killed rebuild."""
        found: dict[str, Any] = {}
        for name in sorted(set(self.client.scan_iter(count=1_000)) - {redis_keys.REBUILD_LOCK.encode()}):
            match self.client.type(name):
                case b"hash":
                    found[name.decode()] = self.client.hgetall(name)
                case b"zset":
                    found[name.decode()] = self.client.zrange(name, 0, -1, withscores=True)
                case b"string":
                    found[name.decode()] = self.client.get(name)
        for bucket in redis_keys.ALL_BUCKETS:
            found[redis_keys.state(bucket)].pop(b"generation")
        return found


def fill(database: Database, draw: random.Random) -> None:
    """Write customers with keys into a ledger, and calls of open conversations."""
    names = [f"cus_{number}" for number in range(PEOPLE)]
    key = {"prefix": "tc", "name": None, "created": 0, "expires": None, "revoked": None, "projected": True}
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(name) for name in names])
        rows = [
            {**key, "key_id": f"key_{name}", "customer": name, "digest": hashlib.sha256(name.encode()).hexdigest()}
            for name in names
        ]
        connection.execute(insert(api_keys), rows)
    append(
        database,
        [
            record(number, customer=(name := draw.choice(names)), conversation=f"{name}-{number % 3}")
            for number in range(CALLS)
        ],
    )


def kill_some(house: House, draw: random.Random, *, kills: int, at_once: int, whole: int) -> int:
    """Kill processes after random numbers of the server's commands; return how many were killed before their end."""
    count = 0
    while count < kills:
        if house.is_whole():
            house.client.flushall()
        with ExitStack() as stack:
            began = house.commands()
            running = [stack.enter_context(house.process()) for _ in range(at_once)]
            victim, last = draw.choice(running), began + draw.randrange(whole)
            until(lambda last=last: house.commands() >= last or house.is_whole())
            victim.kill()
            count += victim.wait() < 0
            if not house.is_whole() and at_once > 1:
                until(house.is_whole)
    return count


def converge(house: House) -> None:
    """Run one process to its end."""
    with house.process() as process:
        assert process.wait(60) == 0
    assert house.is_whole()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ensure", nargs=2, metavar="URL", help="be one of the processes")
    arguments = parser.parse_args()
    if arguments.ensure:
        ensure(*arguments.ensure)
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = Database(f"sqlite:///{directory}/ledger.sqlite")
        database.migrate()
        draw = random.Random(arguments.seed)
        fill(database, draw)
        database.close()
        at = stack.enter_context(valkey_in(stack.enter_context(short_directory())))
        house = House(at, f"sqlite:///{directory}/ledger.sqlite", stack.enter_context(connect(at)))
        print(f"{disturbed(house, draw, kills=arguments.kills, at_once=arguments.at_once)} killed, and it converged")


def disturbed(house: House, draw: random.Random, *, kills: int, at_once: int) -> int:
    """Kill rebuilding processes, and assert that the final hot state equals that of an undisturbed rebuild."""
    began = house.commands()
    converge(house)
    wanted, whole = house.seen(), house.commands() - began
    assert len(wanted) > PEOPLE
    house.client.flushall()
    killed = kill_some(house, draw, kills=kills, at_once=at_once, whole=whole)
    converge(house)
    found = house.seen()
    assert found == wanted, sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name))
    return killed


def ensure(redis_url: str, ledger_url: str) -> None:
    """Ensure the hot state as a worker and a bookkeeper do: try again while another process rebuilds it."""
    database = Database(ledger_url)
    with connect(redis_url) as client:
        everything = CatalogProjector(database, Projection(client))
        recovery = Recovery(database, client, everything, bounds=BOUNDS, now_ms=lambda: NOW, lock_s=LOCK_S)
        print("asks", flush=True)
        while True:
            with suppress(MeteringUnavailable):
                recovery.ensure()
                return


if __name__ == "__main__":
    main()
