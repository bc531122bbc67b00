"""The supervisor starts, keeps and stops the processes of one gateway, with a small program in the gateway's place."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest
import redis

from gateway.errors import StartupError
from gateway.holds.store import redis_keys
from gateway.runtime import sockets
from gateway.runtime.data_directory import Child, DataDir, Running, claimed
from gateway.runtime.supervisor import Supervisor
from gateway.runtime.valkey import find_server
from gateway.settings import Settings, read_settings
from tests.gateway.cli.prefork import forks
from tests.gateway.runtime.program import COMMAND, UNWILLING
from tests.waiting import until

DEADLINE_S = 60.0


class Gateway:
    """A gateway under a supervisor in this process, and ways to look at it from outside."""

    def __init__(self, data: DataDir, listeners: list[socket.socket], reload: asyncio.Event) -> None:
        self.data = data
        self.reload = reload
        self.urls = [sockets.url_of(listener) for listener in listeners]

    def children(self, role: str) -> list[Child]:
        return [child for child in self.data.remembered().children if child.role == role]

    def only(self, role: str) -> Child:
        [child] = self.children(role)
        return child

    def redis(self) -> redis.Redis:
        at = self.data.remembered().socket
        assert at is not None
        return redis.Redis(unix_socket_path=at, decode_responses=True)

    def answer(self, url: str | None = None) -> str:
        return httpx.get(url or self.urls[0], timeout=DEADLINE_S).text

    async def another(self, role: str, before: Child) -> Child:
        """Wait until a child was started in another's place."""

        def found() -> Child | None:
            return next((child for child in self.children(role) if child.process != before.process), None)

        child = await asyncio.to_thread(until, found, DEADLINE_S)
        assert child is not None
        return child


@asynccontextmanager
async def supervised(
    directory: Path, listeners: int = 1, later: Settings | None = None, **changes: object
) -> AsyncIterator[Gateway]:
    """Run a gateway in ``directory`` until the block ends; ``later`` are the settings that a reload finds."""
    settings = read_settings(
        **{"data_dir": directory, "upstream_url": "http://127.0.0.1:9/v1", "shutdown_s": 5, **changes}
    )
    stop, ready, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
    with claimed(directory) as data:
        listening = [sockets.listen("127.0.0.1", 0) for _ in range(listeners)]
        supervisor = _supervisor(settings, data, listening, later)
        running = asyncio.create_task(supervisor.run(stop, ready.set, reload))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running
            yield Gateway(data, listening, reload)
        finally:
            waiting.cancel()
            stop.set()
            await asyncio.wait([running])
            for listener in listening:
                listener.close()
        await running


def _supervisor(
    settings: Settings, data: DataDir, listeners: list[socket.socket], later: Settings | None = None
) -> Supervisor:
    numbers = itertools.count(1)
    read_again = None if later is None else lambda: later
    return Supervisor(
        settings,
        data,
        COMMAND,
        listeners,
        lambda: f"w_{next(numbers)}",
        read_again=read_again,
        execute=forks().execute,
    )


def _exists(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_gateway_is_ready_once_it_answers(directory: Path) -> None:
    """Both workers, the bookkeeper and Valkey run, and a worker answers on the socket that the supervisor opened."""
    async with supervised(directory, workers=2) as gateway:
        answered = await asyncio.to_thread(gateway.answer)

        workers = gateway.children("worker")
        assert answered in {str(worker.process.pid) for worker in workers}
        assert {worker.worker for worker in workers} == {"w_1", "w_2"}
        assert gateway.redis().ping()
        assert gateway.only("bookkeeper").process.is_running()


async def test_valkey_keeps_more_freed_memory_at_hand(directory: Path) -> None:
    program, environment = directory.parent / "valkey", directory.parent / "environment"
    program.write_text(f'#!/bin/sh\nenv > {environment}\nexec {find_server(None)} "$@"\n')
    program.chmod(0o700)
    async with supervised(directory, valkey_server_bin=program) as gateway:
        assert gateway.redis().ping()
    assert "GLIBC_TUNABLES=glibc.malloc.tcache_count=500" in environment.read_text().splitlines()


async def test_nothing_runs_after_a_stop(directory: Path) -> None:
    """Every child has ended, Valkey too, and nothing is remembered."""
    async with supervised(directory, upstream_url="simulated") as gateway:
        children = gateway.data.remembered().children
        assert {child.role for child in children} == {"worker", "bookkeeper", "simulated model", "valkey"}

    assert not any(_exists(child.process.pid) for child in children)
    assert DataDir(directory).remembered().children == ()
    assert not (directory / "valkey" / "valkey.sock").exists()


async def test_the_admin_side_has_its_own_socket_where_it_has_an_address(directory: Path) -> None:
    """With two sockets a worker answers on both."""
    async with supervised(directory, listeners=2) as gateway:
        answers = [await asyncio.to_thread(gateway.answer, url) for url in gateway.urls]

        assert answers == [str(gateway.only("worker").process.pid)] * 2


async def test_a_killed_worker_is_replaced_and_declared_ended(directory: Path) -> None:
    """Another worker with another id takes the calls; Redis has the proof that the first one is dead."""
    async with supervised(directory) as gateway:
        first = gateway.only("worker")
        gateway.redis().set(redis_keys.worker("w_1"), "alive")

        os.kill(first.process.pid, signal.SIGKILL)

        second = await gateway.another("worker", first)
        assert second.worker == "w_2"
        assert await asyncio.to_thread(gateway.answer) == str(second.process.pid)
        proof = await asyncio.to_thread(until, lambda: gateway.redis().get(redis_keys.ended_worker("w_1")), DEADLINE_S)
        assert proof == "1"
        assert await asyncio.to_thread(until, lambda: not gateway.redis().exists(redis_keys.worker("w_1")), DEADLINE_S)
        assert 0 < gateway.redis().ttl(redis_keys.ended_worker("w_1")) <= 24 * 60 * 60
        assert not gateway.redis().exists(redis_keys.ended_worker("w_2"))


async def test_a_reload_whose_workers_do_not_come_up_leaves_those_that_run(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody goes on starting those that did not, also after the stop."""
    async with supervised(directory, later=read_settings(model="unwilling worker")) as gateway:
        before = gateway.only("worker")

        gateway.reload.set()
        await asyncio.to_thread(until, lambda: "Nothing more is reloaded" in caplog.text, DEADLINE_S)
        await asyncio.to_thread(until, lambda: len(gateway.children("worker")) == 1, DEADLINE_S)

        assert gateway.only("worker") == before
        assert await asyncio.to_thread(gateway.answer) == str(before.process.pid)

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reload_whose_tables_cannot_be_migrated_leaves_everything_as_it_was(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(directory, later=read_settings(model="unwilling ledger")) as gateway:
        before = gateway.only("worker"), gateway.only("bookkeeper")

        sentence = "Nothing is reloaded: the ledger's tables"
        for times in (1, 2):  # the second begins once the first is over
            gateway.reload.set()
            await asyncio.to_thread(until, lambda times=times: caplog.text.count(sentence) == times, DEADLINE_S)

        assert (gateway.only("worker"), gateway.only("bookkeeper")) == before
        assert await asyncio.to_thread(gateway.answer) == str(before[0].process.pid)


async def test_a_reload_begins_a_new_bookkeeper_before_the_first_new_worker(directory: Path) -> None:
    """It takes what workers before it and after it write; the one before it takes nothing that a later one adds."""
    async with supervised(directory, workers=2, later=read_settings(model="renewed")) as gateway:
        books, workers = gateway.only("bookkeeper"), gateway.children("worker")

        gateway.reload.set()
        later = await gateway.another("bookkeeper", books)
        await asyncio.to_thread(until, lambda: len(gateway.children("worker")) == 3, DEADLINE_S)
        [new] = [child for child in gateway.children("worker") if child not in workers]

        assert _deadlines(later) <= _deadlines(new)


def _deadlines(child: Child) -> int:
    return int((child.process.began or "").rpartition("/")[2])


async def test_a_killed_valkey_comes_back_with_its_data(directory: Path) -> None:
    """What was written before is there after, on the same socket; a worker that ended meanwhile is declared then."""
    async with supervised(directory) as gateway:
        server, worker = gateway.only("valkey"), gateway.only("worker")
        gateway.redis().set("kept", "yes")

        os.kill(server.process.pid, signal.SIGKILL)
        os.kill(worker.process.pid, signal.SIGKILL)

        await gateway.another("valkey", server)
        await asyncio.to_thread(until, lambda: _read(gateway, redis_keys.ended_worker("w_1")), DEADLINE_S)
        assert gateway.redis().get("kept") == "yes"


def _read(gateway: Gateway, key: str) -> object:
    try:
        return gateway.redis().get(key)
    except redis.RedisError:
        return None


@pytest.mark.parametrize("role", ["bookkeeper", "simulated model"])
async def test_whatever_else_ends_is_started_again(directory: Path, role: str) -> None:
    """The bookkeeper and the simulated model come back after a kill."""
    async with supervised(directory, upstream_url="simulated") as gateway:
        first = gateway.only(role)

        os.kill(first.process.pid, signal.SIGKILL)

        assert (await gateway.another(role, first)).process.is_running()


@pytest.mark.parametrize("command", ["worker", "simulate"])
async def test_a_child_that_will_not_start_ends_the_start(directory: Path, command: str) -> None:
    """The start is given up with one sentence and exit code 3, and nothing of it keeps running."""
    changes = {UNWILLING.removeprefix("TOKENCAP_").lower(): f"unwilling {command}", "upstream_url": "simulated"}

    with pytest.raises(StartupError, match="ended with status 3") as refused:
        async with supervised(directory, **changes):
            pass

    assert refused.value.exit_code == 3
    assert DataDir(directory).remembered().children == ()


async def test_a_valkey_that_will_not_start_ends_the_start(directory: Path) -> None:
    """A program that is no server is named as what ended."""
    with pytest.raises(StartupError, match=r"Valkey .* ended with status"):
        async with supervised(directory, valkey_server_bin=Path("/bin/false")):
            pass


async def test_a_stop_during_the_start_is_obeyed(directory: Path) -> None:
    """Ctrl-C before the gateway answers stops what was started and is no error."""
    stop = asyncio.Event()
    stop.set()
    ready = asyncio.Event()
    with claimed(directory) as data, closing(sockets.listen("127.0.0.1", 0)) as listener:
        settings = read_settings(data_dir=directory, upstream_url="http://127.0.0.1:9/v1")
        await _supervisor(settings, data, [listener]).run(stop, ready.set)

        assert not ready.is_set()
        assert data.remembered().children == ()


async def test_workers_of_an_earlier_start_are_declared_ended(directory: Path) -> None:
    """What the directory remembers of a killed start reaches Redis, and is then remembered no longer."""
    with claimed(directory) as data:
        data.remember(Running(ended_workers=("w_of_before",)))

    async with supervised(directory) as gateway:
        await asyncio.to_thread(until, lambda: gateway.data.remembered().ended_workers == (), DEADLINE_S)

        assert gateway.redis().get(redis_keys.ended_worker("w_of_before")) == "1"


async def test_a_directory_too_deep_for_a_socket_is_fine(directory: Path) -> None:
    """Valkey then listens in a private directory elsewhere, which is gone after a stop."""
    deep = directory / ("deep" * 30)
    async with supervised(deep) as gateway:
        socket = gateway.data.remembered().socket
        assert gateway.redis().ping()

    assert socket is not None
    assert not Path(socket).is_relative_to(directory)
    assert not Path(socket).parent.exists()


async def test_redis_elsewhere_is_used_and_left_alone(directory: Path, valkey_url: str) -> None:
    """With a URL no Valkey is started; the last workers are declared ended there on a clean stop."""
    async with supervised(directory, redis_url=valkey_url) as gateway:
        assert gateway.children("valkey") == []

    with redis.Redis.from_url(valkey_url) as client:
        assert client.get(redis_keys.ended_worker("w_1")) == b"1"
