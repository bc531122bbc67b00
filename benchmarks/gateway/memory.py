"""What calls leave in Redis once they are settled, booked and forgotten by their worker.

python -m benchmarks.gateway.memory                     bytes a call, where each is a conversation of its own
python -m benchmarks.gateway.memory --calls 1000000     how much more there is after so many than after a tenth of them,
                                                        where a thousand conversations take turns
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.gateway.scripts import asked
from gateway.app import request_ids
from gateway.holds.hold import Hold
from gateway.holds.store import redis_keys
from tests.gateway.holds.desk import Desk

ALONE = 20_000
AT_ONCE = 200
CONVERSATIONS = 1_000
CUSTOMER = "cus_a871dbb210cd70d2d4f5709f"
"""As long as ours are."""


def used(told: Desk) -> int:
    """Return bytes of data and of the tables that they stand in: neither what starts with the server nor any buffer."""
    told.blocking.execute_command("MEMORY", "PURGE")  # type: ignore[no-untyped-call]
    info: dict[str, Any] = told.blocking.info("memory")
    buffers = ("mem_clients_normal", "mem_aof_buffer", "used_memory_startup", "used_memory_scripts_eval")
    return int(info["used_memory"]) - sum(int(info.get(name, 0)) for name in buffers)


async def call(told: Desk, name: str, conversation: str | None) -> Hold:
    named = {} if conversation is None else {"conversation": conversation}
    hold = await told.reserve(name, CUSTOMER, 10, **named)
    await told.settlements.settle(hold, told.outcome(10))
    return hold


async def calls(told: Desk, names: Iterator[str], many: int, conversations: list[str] | None) -> None:
    """Make calls, and see to them as their worker and the bookkeeper do: marks are removed, records leave the stream."""
    bucket = redis_keys.bucket_of(CUSTOMER)
    for turn in range(many // AT_ONCE):
        some = list(islice(names, AT_ONCE))
        where = [
            None if conversations is None else conversations[(turn * AT_ONCE + n) % CONVERSATIONS]
            for n in range(AT_ONCE)
        ]
        await asyncio.gather(*(call(told, name, talk) for name, talk in zip(some, where, strict=True)))
        await told.settlements.forget((bucket, name) for name in some)
        told.holds.clear()
        told.blocking.delete(redis_keys.usage(bucket))


async def measure(many: int | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with asked(Path(directory)) as (told, _):
            told.tier("all", conversation_tokens_max=10**9, price_nanousd=1_000)
            told.customer(CUSTOMER, "all")
            names = request_ids()
            if many is None:
                await calls(told, names, AT_ONCE, None)
                before = used(told)
                await calls(told, names, ALONE, None)
                print(f"{(used(told) - before) / ALONE:.0f} bytes a call")
                return
            conversations = list(islice(names, CONVERSATIONS))
            await calls(told, names, many // 10, conversations)
            before = used(told)
            await calls(told, names, many - many // 10, conversations)
            after = used(told)
            print(f"{before:,} bytes after {many // 10:,} calls, {after:,} after {many:,}: {after / before - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int)
    uvloop.run(measure(parser.parse_args().calls))


if __name__ == "__main__":
    main()
