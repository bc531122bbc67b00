"""The memory of Redis that calls occupy once they are settled, booked and forgotten by their worker.

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
"""An id as long as real customer ids."""


def used(holds_desk: Desk) -> int:
    """Return the bytes of data and of their tables, without those used at the server's start and without buffers."""
    holds_desk.blocking.execute_command("MEMORY", "PURGE")  # type: ignore[no-untyped-call]
    info: dict[str, Any] = holds_desk.blocking.info("memory")
    buffers = ("mem_clients_normal", "mem_aof_buffer", "used_memory_startup", "used_memory_scripts_eval")
    return int(info["used_memory"]) - sum(int(info.get(name, 0)) for name in buffers)


async def call(holds_desk: Desk, name: str, conversation: str | None) -> Hold:
    labels = {} if conversation is None else {"conversation": conversation}
    hold = await holds_desk.reserve(name, CUSTOMER, 10, **labels)
    await holds_desk.settlements.settle(hold, holds_desk.outcome(10))
    return hold


async def calls(holds_desk: Desk, names: Iterator[str], count: int, conversations: list[str] | None) -> None:
    """Make calls, and clean up as their worker and the bookkeeper do: remove marks, delete records from the stream."""
    bucket = redis_keys.bucket_of(CUSTOMER)
    for turn in range(count // AT_ONCE):
        batch = list(islice(names, AT_ONCE))
        batch_conversations = [
            None if conversations is None else conversations[(turn * AT_ONCE + n) % CONVERSATIONS]
            for n in range(AT_ONCE)
        ]
        await asyncio.gather(
            *(
                call(holds_desk, name, conversation)
                for name, conversation in zip(batch, batch_conversations, strict=True)
            )
        )
        await holds_desk.settlements.forget((bucket, name) for name in batch)
        holds_desk.holds.clear()
        holds_desk.blocking.delete(redis_keys.usage(bucket))


async def measure(count: int | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with asked(Path(directory)) as (holds_desk, _):
            holds_desk.tier("all", conversation_tokens_max=10**9, price_nanousd=1_000)
            holds_desk.customer(CUSTOMER, "all")
            names = request_ids()
            if count is None:
                await calls(holds_desk, names, AT_ONCE, None)
                before = used(holds_desk)
                await calls(holds_desk, names, ALONE, None)
                print(f"{(used(holds_desk) - before) / ALONE:.0f} bytes a call")
                return
            conversations = list(islice(names, CONVERSATIONS))
            await calls(holds_desk, names, count // 10, conversations)
            before = used(holds_desk)
            await calls(holds_desk, names, count - count // 10, conversations)
            after = used(holds_desk)
            print(f"{before:,} bytes after {count // 10:,} calls, {after:,} after {count:,}: {after / before - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int)
    uvloop.run(measure(parser.parse_args().calls))


if __name__ == "__main__":
    main()
