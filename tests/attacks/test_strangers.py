"""Strangers without a key cost a worker little, whatever they send, and a customer is served meanwhile.

The tests measure the worker's own CPU time and memory, which other load on the machine does not change.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest

from benchmarks.gateway.hostile import BODIES, HALVES, HEADS, Sends, Stranger, attack
from benchmarks.gateway.processes import cpu_s, memory_mb
from gateway.settings import PROGRAM, Settings
from tests.loop.rig import rig
from tests.servers import ends_with_us, short_directory, valkey_in

AT_ONCE = 6
CPU_MOST_S = 6.0
"""CPU time of a worker for six strangers of one kind; parsing one of their bodies would take two to twenty seconds."""

STALL_MOST_S = 0.5
"""CPU time of the worker during a customer's call, including the milliseconds of the call itself."""

MEMORY_MOST_MB = 48
"""Three bodies; the strangers send six at once."""

CONNECTIONS = 500
START_S, STOP_S = 240.0, 60.0


@dataclass(frozen=True)
class House:
    """A gateway of one worker in a separate process, and the key of a customer."""

    port: int
    worker: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def worker_of(settings: Settings) -> Iterator[tuple[int, int]]:
    """Run a worker as the supervisor does; yield its port and process id."""
    watched, kept_open = os.pipe()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        words = ["worker", "--fd", str(listener.fileno()), "--id", "w_attacked", "--watch-fd", str(watched)]
        port: int = listener.getsockname()[1]
        process = subprocess.Popen(
            [*PROGRAM, *words],
            env={**os.environ, **settings.to_environment()},
            pass_fds=(listener.fileno(), watched),
            stderr=subprocess.DEVNULL,
        )
        os.close(watched)
        with ends_with_us(process.pid, "KILL"):
            try:
                httpx.get(
                    f"http://127.0.0.1:{port}/livez", timeout=START_S
                )  # the socket accepts it before the worker has started
                yield port, process.pid
            finally:
                os.close(kept_open)
                process.wait(STOP_S)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("attacked")
    with ExitStack() as stack:
        redis_url = stack.enter_context(valkey_in(stack.enter_context(short_directory())))
        ledger = f"sqlite:///{directory / 'ledger.sqlite'}"
        settings = {"head_deadline_s": 5, "keep_alive_s": 5, "body_rate_min": 1024, "lease_s": 60, "shutdown_s": 1}
        loop = stack.enter_context(rig(redis_url, ledger, directory, **settings))
        loop.tier("open", requests_per_minute=1_000_000)
        port, pid = stack.enter_context(worker_of(loop.settings))
        yield House(port, pid, loop.customer("open").key)


async def stalls(house: House, until_done: asyncio.Future[object]) -> list[float]:
    """Read an account again and again; return the worker's CPU time during each call."""
    found: list[float] = []
    headers = {"authorization": f"Bearer {house.key}"}
    async with httpx.AsyncClient(base_url=house.url, headers=headers, timeout=120) as client:
        while not until_done.done():
            before = cpu_s([house.worker])
            answer = await client.get("/v1/account")
            found.append(cpu_s([house.worker]) - before)
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(0.01)
    return found


async def attacked(house: House, send: Sends, at_once: int = AT_ONCE) -> tuple[list[bytes], list[float], float, float]:
    """Run strangers; return their answers, a customer's stalls, and the worker's CPU seconds and MB."""
    cpu, memory = cpu_s([house.worker]), memory_mb([house.worker])
    strangers = asyncio.gather(*(attack(house.port, send, Stranger(slow_s=0.2)) for _ in range(at_once)))
    felt = await stalls(house, strangers)
    return await strangers, felt, cpu_s([house.worker]) - cpu, memory_mb([house.worker]) - memory


@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_without_a_key_costs_its_bytes_and_no_more(house: House, kind: str) -> None:
    answers, felt, cpu, memory = await attacked(house, BODIES[kind])

    assert [one.split(b" ", 2)[1] for one in answers] == [b"401"] * AT_ONCE
    assert max(felt) <= STALL_MOST_S
    assert cpu <= CPU_MOST_S
    assert memory <= MEMORY_MOST_MB


@pytest.mark.parametrize("kind", HEADS)
async def test_what_is_refused_once_enough_of_it_is_there_costs_that_much(house: House, kind: str) -> None:
    answers, felt, cpu, memory = await attacked(house, HEADS[kind])

    assert all(one.startswith(b"HTTP/1.1 4") or not one for one in answers), answers
    assert max(felt) <= STALL_MOST_S
    assert cpu <= CPU_MOST_S
    assert memory <= MEMORY_MOST_MB


@pytest.mark.parametrize("kind", HALVES)
async def test_halves_are_ended_by_their_deadline(house: House, kind: str) -> None:
    """The worker ends each connection although its stranger would go on: ``attack`` returns only then."""
    answers, felt, cpu, memory = await attacked(house, HALVES[kind], CONNECTIONS // len(HALVES))

    assert all(one.startswith(b"HTTP/1.1 4") for one in answers), {one[:40] for one in answers}
    assert max(felt) <= STALL_MOST_S
    assert cpu <= CPU_MOST_S
    assert memory <= MEMORY_MOST_MB
