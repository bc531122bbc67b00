"""A process that has loaded the commands and forks for each: a process like any other, without loading them anew.

Loading takes most commands longer than what they do. A gateway that is started so starts its own processes in the same
way. ``test_main.py`` and ``test_current_directory.py`` start the program itself, as a user's shell does.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process as ChildProcess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn, cast

from gateway.cli.main import COMMANDS, run
from gateway.runtime.children import execute

LOADED = (
    *(entry.module for entry in COMMANDS.values()),
    *("gateway.repricing.drafting", "gateway.repricing.run", "gateway.webhooks.delivery"),
    *("pricing.certificate", "pricing.mechanism.lasting", "pricing.menus.menus", "pricing.report.report"),
    *(
        "alembic.command",
        "anyio._backends._asyncio",
        "encodings.idna",
        "httpcore",
        "pydantic.v1",
        "uvicorn.lifespan.on",
    ),
)
"""The modules that the commands load, at their start or later."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""As the bookkeeper starts what computes: threads would not survive the fork."""

REQUEST_MAX = 2**17
FDS_MAX = 32
STREAMS = 3
PROGRAM = "gateway.cli.main"
STOP_S = 40.0
"""How long a stopped command may take to end before it is killed."""
UNUSED_FD = 200
"""File descriptors from here on are free in a new fork."""


class Started:
    """A forked process, with the methods of ``subprocess.Popen`` that its user needs.

    Args:
        channel: on it comes the process's number, then its exit code, a line each.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lines = channel.makefile("r")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def fileno(self) -> int:
        """Return the file descriptor that becomes readable when the process has ended."""
        return self._channel.fileno()

    def poll(self) -> int | None:
        """Return the exit code, None while the process runs."""
        with contextlib.suppress(TimeoutError):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return its exit code.

        Raises:
            TimeoutError: it did not end in time.
        """
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise TimeoutError
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._channel.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class AsyncStarted:
    """The same, as asyncio has its processes."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(started, self._end)
        self.pid = started.pid

    @property
    def returncode(self) -> int | None:
        return self._started.returncode

    async def wait(self) -> int:
        await self._ended.wait()
        return self._started.wait()

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _end(self) -> None:
        self._loop.remove_reader(self._started)
        self._started.wait()
        self._ended.set()


def _umask() -> int:
    """Return this process's umask, which can only be read by setting another."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@dataclass(frozen=True, slots=True)
class Request:
    """A command to fork for."""

    words: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    fds: Sequence[int] = ()
    """File descriptors that the command inherits, with the numbers that they have in the process that requests it."""
    forks: int | None = None
    """The file descriptor with which the command itself requests forks, None for a command that starts none."""
    module: str = PROGRAM
    """The module whose ``main`` runs."""
    umask: int = field(default_factory=_umask)


class Forks:
    """The way to the process that forks."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests

    def start(self, request: Request, streams: tuple[int, int, int]) -> Started:
        """Start a command with its standard input, output and error."""
        here, there = socket.socketpair()
        with there:
            message = json.dumps(asdict(request)).encode()
            socket.send_fds(self._requests, [message], [*streams, there.fileno(), *request.fds])
        return Started(here)

    def run(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: str | None, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; kill it if that takes too long."""
        with TemporaryFile("w+") as source, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            source.write(stdin or "")
            source.seek(0)
            request = Request(words, env, str(cwd))
            started = self.start(request, (source.fileno(), out.fileno(), err.fileno()))
            try:
                code = started.wait(timeout_s)
            except TimeoutError:
                started.kill()
                raise
            return subprocess.CompletedProcess(list(words), code, _written(out), _written(err))

    def gateway(self, words: Sequence[str], env: Mapping[str, str], cwd: Path, out: int, err: int) -> Started:
        """Start ``serve`` or ``demo``, which forks its own processes."""
        own = self._requests.fileno()
        with Path(os.devnull).open("rb") as null:
            return self.start(Request(words, env, str(cwd), [own], own), (null.fileno(), out, err))

    async def execute(
        self, command: Sequence[str], environment: Mapping[str, str], fds: Collection[int]
    ) -> ChildProcess:
        """Start a module of Python as a fork, and any other program as the supervisor does."""
        if command[0] != sys.executable:
            return await execute(command, environment, fds)
        place = command.index("-m") + 1
        request = Request(command[place + 1 :], environment, str(Path.cwd()), list(fds), module=command[place])
        with Path(os.devnull).open("rb") as null:
            return cast(ChildProcess, AsyncStarted(self.start(request, (null.fileno(), 1, 2))))


@cache
def forks() -> Forks:
    """Return the way to a process that forks for this process's tests and ends with this process."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(there.fileno())],
            pass_fds=[there.fileno()],
            env=os.environ | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a signal to the tests' group would end it before it stops its commands
        )
    atexit.register(process.communicate)
    return Forks(here)


def _written(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def main() -> None:
    """Fork for each command that is requested, until the process that started this one is gone.

    That closes the standard input, however it ended; then the commands that still run are stopped. A gateway learns from
    this process that its own processes have ended.
    """
    requests = socket.socket(fileno=int(sys.argv[1]))
    for module in LOADED:
        import_module(module)
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        is_used = True
        while is_used or running:
            events = selector.select(None if is_used else STOP_S)
            if not events:
                for pid, _ in running.values():
                    os.kill(pid, signal.SIGKILL)
                return
            for key, _ in events:
                if key.fileobj is sys.stdin:
                    is_used = False
                    selector.unregister(sys.stdin)
                    for pid, _ in running.values():
                        os.kill(pid, signal.SIGTERM)
                elif key.fileobj is requests:
                    message, fds, _, _ = socket.recv_fds(requests, REQUEST_MAX, FDS_MAX)
                    pid, channel = _forked(json.loads(message), fds)
                    pidfd = os.pidfd_open(pid)
                    running[pidfd] = pid, channel
                    selector.register(pidfd, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fd)
                    _report_end(key.fd, *running.pop(key.fd))


def _report_end(pidfd: int, pid: int, channel: int) -> None:
    os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # the process that started it is gone
        os.write(channel, f"{code}\n".encode())
    os.close(channel)


def _forked(request: dict[str, Any], received: list[int]) -> tuple[int, int]:
    """Fork for a request; return the process's number, and where its end is reported."""
    pid = os.fork()
    if pid == 0:
        _become(Request(**request), received)
    channel = received[STREAMS]
    for fd in received:
        if fd != channel:
            os.close(fd)
    os.write(channel, f"{pid}\n".encode())
    return pid, channel


def _become(request: Request, received: list[int]) -> NoReturn:
    """Run the command in this process, which ends with it."""
    code = 70
    try:
        os.setsid()
        places = [*range(STREAMS), *request.fds]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, UNUSED_FD) for fd in [*received[:STREAMS], *received[STREAMS + 1 :]]]
        os.closerange(STREAMS, UNUSED_FD)
        for fd, place in zip(high, places, strict=True):
            os.dup2(fd, place)
            os.close(fd)
        os.environ.clear()
        os.environ.update(request.env)
        os.chdir(request.cwd)
        os.umask(request.umask)
        code = _run(request)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(request: Request) -> int:
    """Run the module as the main program; return its exit code."""
    sys.argv[1:] = request.words
    if request.module == PROGRAM:
        own = None if request.forks is None else Forks(socket.socket(fileno=request.forks))
        return run(request.words, own and own.execute)
    try:
        import_module(request.module).main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else end.code is not None
    return 0


if __name__ == "__main__":
    main()
