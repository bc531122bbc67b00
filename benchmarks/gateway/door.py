"""The effect of strangers on a customer: calls beside a thousand hostile connections and 32 large bodies without a key.

python -m benchmarks.gateway.door

The customer is a process of its own; otherwise it would wait while the strangers' bytes are generated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx

from benchmarks.gateway.hostile import BODIES, EVERYTHING, HALVES, Stranger, attack
from benchmarks.gateway.ours import Subject, tokencap
from benchmarks.gateway.processes import cpu_s, memory_mb

CONNECTIONS, BODIES_AT_ONCE, CALLS = 1_000, 32, 400
PAUSE_S = 0.05
SETTINGS = {"HEAD_DEADLINE_S": "10", "BODY_RATE_MIN": "1024"}


def call(port: int, headers: dict[str, str], workers: list[int], calls: int) -> tuple[list[float], float]:
    """Request the account ``calls`` times; return the ms that each call took, and the worker's peak memory in MB."""
    call_ms: list[float] = []
    most_memory = 0.0
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        for _ in range(calls):
            begun = time.perf_counter()
            answer = client.get("/v1/account", headers=headers)
            call_ms.append((time.perf_counter() - begun) * 1000)
            answer.raise_for_status()
            most_memory = max(most_memory, memory_mb(workers))
            time.sleep(PAUSE_S)
    return call_ms, most_memory


async def bodies_on_end(port: int, done: asyncio.Event, count: Counter[str]) -> None:
    """Send bodies without a key, one after another, of every kind in turn."""
    while not done.is_set():
        for kind in BODIES.values():
            answer = await attack(port, kind, Stranger())
            count[answer.split(b"\r\n", 1)[0].decode("latin-1") or "closed"] += 1
            if done.is_set():
                return


async def measure(subject: Subject, customer: ProcessPoolExecutor) -> dict[str, Any]:
    """Return the times of calls alone and beside everything hostile, and when the last hostile connection was gone."""

    def latencies() -> asyncio.Future[tuple[list[float], float]]:
        query = (subject.port, subject.headers, subject.parts["gateway"], CALLS)
        return asyncio.get_running_loop().run_in_executor(customer, call, *query)

    alone_ms, memory_before = await latencies()
    cpu_before, begun, done, answers = (
        cpu_s(subject.parts["gateway"]),
        time.monotonic(),
        asyncio.Event(),
        Counter[str](),
    )
    kinds = list(EVERYTHING.values())
    halves = [
        asyncio.create_task(attack(subject.port, kinds[number % len(kinds)], Stranger()))
        for number in range(CONNECTIONS)
    ]
    bodies = [asyncio.create_task(bodies_on_end(subject.port, done, answers)) for _ in range(BODIES_AT_ONCE)]
    beside_ms, most_memory = await latencies()
    done.set()
    await asyncio.gather(*bodies)
    hostile_answers = await asyncio.gather(*halves)
    gone_s = time.monotonic() - begun
    return {
        "alone_ms": _percentiles(alone_ms),
        "beside_ms": _percentiles(beside_ms),
        "worker_grew_mb": round(most_memory - memory_before, 1),
        "worker_cpu_s": round(cpu_s(subject.parts["gateway"]) - cpu_before, 2),
        "last_hostile_connection_gone_s": round(gone_s, 1),
        "bodies_without_a_key": dict(answers),
        "hostile_answers": dict(
            Counter(answer.split(b"\r\n", 1)[0].decode("latin-1") or "closed" for answer in hostile_answers)
        ),
        "of_them_halves": CONNECTIONS * len(HALVES) // len(kinds),
    }


def _percentiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1), "max": round(max(times), 1)}


def main() -> None:
    """Measure once and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int, default=0, help="the gateway's core; its Redis has the other core")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subject = stack.enter_context(
            tokencap(9, directory, arguments.core, 1 - arguments.core, fsync="everysec", settings=SETTINGS)
        )
        customer = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        print(json.dumps(asyncio.run(measure(subject, customer)), indent=2))


if __name__ == "__main__":
    main()
