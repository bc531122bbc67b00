"""Starts child processes and records each, so that the next start knows of them however this start ends."""

from __future__ import annotations

import asyncio
import logging
import os
from asyncio.subprocess import DEVNULL
from asyncio.subprocess import Process as ChildProcess
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

from redis.exceptions import RedisError

from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.connection import RedisConnection
from gateway.runtime.data_directory import Child, DataDir, Running
from gateway.runtime.ended_workers import EndedWorkers
from gateway.runtime.processes import Process
from gateway.settings import without_settings

log = logging.getLogger(__name__)

Execute = Callable[[Sequence[str], Mapping[str, str], Collection[int]], Awaitable[ChildProcess]]
"""Starts a command with an environment, and with the file descriptors that it inherits."""


async def execute(command: Sequence[str], environment: Mapping[str, str], fds: Collection[int]) -> ChildProcess:
    """Start a command in a session of its own: Ctrl-C on the terminal reaches only the supervisor."""
    return await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, env=environment, pass_fds=tuple(fds), start_new_session=True
    )


class Children:
    """The processes that run on one data directory, and the workers that ended.

    Args:
        data: the data directory, claimed; it remembers the workers of earlier starts whose end Redis does not know.
        socket: Valkey's socket, where the server is embedded.
        connection: to the Redis that is notified of workers' ends.
        execute: starts a process.
    """

    def __init__(
        self, data: DataDir, socket: Path | None, connection: RedisConnection, execute: Execute = execute
    ) -> None:
        self._data = data
        self._socket = None if socket is None else str(socket)
        self._connection = connection
        self._execute = execute
        self._running: dict[int, Child] = {}
        self.ended_workers = EndedWorkers(connection, data.remembered().ended_workers, on_recorded=self._write_down)

    async def start(
        self,
        role: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        fds: Collection[int] = (),
        worker: str | None = None,
    ) -> ChildProcess:
        """Start a process and record it. Secrets go into ``environment``: anyone on the machine can read a command."""
        process = await self._execute(
            command, {**without_settings(os.environ), **environment}, (*fds, *self._data.held)
        )
        self._running[process.pid] = Child(role, Process.of_pid(process.pid), worker)
        self._write_down()
        return process

    async def is_beating(self, worker: str) -> bool:
        """Return whether Redis has a heartbeat of a worker; False where Redis does not answer."""
        try:
            return bool(await self._connection.execute("EXISTS", redis_keys.worker(worker)))
        except (RedisError, MeteringUnavailable):
            return False

    async def note_end(self, process: ChildProcess) -> None:
        """Remove a process whose status has been collected, which proves that it ended."""
        child = self._running.pop(process.pid)
        if child.worker is not None:
            self.ended_workers.add(child.worker)
        self._write_down()

    def forget_socket(self) -> None:
        """Remove Valkey's socket from the list once nothing can listen on it."""
        self._socket = None
        self._write_down()

    def _write_down(self) -> None:
        running = Running(tuple(self._running.values()), self._socket, self.ended_workers.ids)
        try:
            self._data.remember(running)
        except OSError as error:
            # Without the list the next start waits longer for this start's holds; that is no reason to stop now.
            log.error("The list of processes on %s cannot be written: %s.", self._data.path, error.strerror)
