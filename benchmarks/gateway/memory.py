"""The memory of Redis that calls occupy once they are settled, booked and forgotten by their worker.

python -m benchmarks.gateway.memory                     bytes a call, where each call is a conversation of its own
python -m benchmarks.gateway.memory --calls 1000000     the growth from a tenth of these calls to all of them, where a
                                                        thousand conversations take turns
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

from benchmarks.gateway.scripts import harness_of
from gateway.app import request_ids
from gateway.holds.hold import Hold
from gateway.holds.store import redis_keys
from tests.gateway.holds.harness import HoldsHarness

ALONE = 20_000
AT_ONCE = 200
CONVERSATIONS = 1_000
CUSTOMER = "cus_a871dbb210cd70d2d4f5709f"
"""An id as long as real customer ids."""


def used(harness: HoldsHarness) -> int:
    """Return the bytes of data and of its tables, without the bytes used at the server's start and without buffers."""
    harness.blocking.execute_command("MEMORY", "PURGE")  # type: ignore[no-untyped-call]
    info: dict[str, Any] = harness.blocking.info("memory")
    buffers = ("mem_clients_normal", "mem_aof_buffer", "used_memory_startup", "used_memory_scripts_eval")
    return int(info["used_memory"]) - sum(int(info.get(name, 0)) for name in buffers)


async def call(harness: HoldsHarness, name: str, conversation: str | None) -> Hold:
    labels = {} if conversation is None else {"conversation": conversation}
    hold = await harness.reserve(name, CUSTOMER, 10, **labels)
    await harness.settlements.settle(hold, harness.outcome(10))
    return hold


async def calls(harness: HoldsHarness, names: Iterator[str], count: int, conversations: list[str] | None) -> None:
    """Make calls, and clean up as their worker and the bookkeeper do: remove marks, delete records from the stream."""
    bucket = redis_keys.bucket_of(CUSTOMER)
    for turn in range(count // AT_ONCE):
        batch = list(islice(names, AT_ONCE))
        batch_conversations = [
            None if conversations is None else conversations[(turn * AT_ONCE + n) % CONVERSATIONS]
            for n in range(AT_ONCE)
        ]
        await asyncio.gather(
            *(call(harness, name, conversation) for name, conversation in zip(batch, batch_conversations, strict=True))
        )
        await harness.settlements.forget((bucket, name) for name in batch)
        harness.holds.clear()
        harness.blocking.delete(redis_keys.usage(bucket))


async def measure(count: int | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with harness_of(Path(directory)) as (harness, _):
            harness.tier("all", conversation_tokens_max=10**9, price_nanousd=1_000)
            harness.customer(CUSTOMER, "all")
            names = request_ids()
            if count is None:
                await calls(harness, names, AT_ONCE, None)
                before = used(harness)
                await calls(harness, names, ALONE, None)
                print(f"{(used(harness) - before) / ALONE:.0f} bytes a call")
                return
            conversations = list(islice(names, CONVERSATIONS))
            await calls(harness, names, count // 10, conversations)
            before = used(harness)
            await calls(harness, names, count - count // 10, conversations)
            after = used(harness)
            print(f"{before:,} bytes after {count // 10:,} calls, {after:,} after {count:,}: {after / before - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int)
    uvloop.run(measure(parser.parse_args().calls))


if __name__ == "__main__":
    main()
