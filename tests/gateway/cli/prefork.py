"""A process that has loaded the commands and forks for each: a process like any other, without loading them anew.

Loading takes most commands longer than what they do. ``test_main.py`` starts each once as a user's shell does.
"""

from __future__ import annotations

import array
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from gateway.cli.main import COMMANDS, run

LOADED = (
    *(entry.module for name, entry in COMMANDS.items() if name not in ("demo", "worker")),
    *("gateway.repricing.drafting", "gateway.repricing.run", "gateway.webhooks.delivery"),
    *("pricing.certificate", "pricing.mechanism.lasting", "pricing.menus.menus", "pricing.report.report"),
)
"""The modules that the commands load, at their start or later."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""As the bookkeeper starts what computes: threads would not survive the fork."""


class Prefork:
    """The way to such a process, which ends with the one that started it."""

    def __init__(self) -> None:
        self._here, there = socket.socketpair()
        with there:
            subprocess.Popen(
                [sys.executable, "-m", __name__, str(there.fileno())],
                pass_fds=[there.fileno()],
                env=os.environ | ONE_THREAD,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._answers = self._here.makefile("r")

    def run(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: str | None, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; kill it if that takes too long."""
        with TemporaryFile("w+") as given, TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            given.write(stdin or "")
            given.seek(0)
            asked = json.dumps({"words": list(words), "env": dict(env), "cwd": str(cwd)}).encode()
            fds = array.array("i", [each.fileno() for each in (given, out, err)])
            self._here.settimeout(timeout_s)
            socket.send_fds(self._here, [len(asked).to_bytes(8)], fds)
            self._here.sendall(asked)
            pid = int(self._answers.readline())
            try:
                code = int(self._answers.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            return subprocess.CompletedProcess(list(words), code, _written(out), _written(err))


def _written(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _next(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return what is asked for next and its standard streams, None once the other side has gone."""
    head, fds, _, _ = socket.recv_fds(connection, 8, 3)
    if not head:
        return None
    size, asked = int.from_bytes(head), b""
    while len(asked) < size:
        asked += connection.recv(size - len(asked))
    return json.loads(asked), fds


def main() -> None:
    """Fork for each command that is asked for; in the fork, run it."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    for module in LOADED:
        import_module(module)
    gc.freeze()
    while (found := _next(connection)) is not None:
        asked, fds = found
        pid = os.fork()
        if pid == 0:
            connection.close()
            sys.exit(_run(asked, fds))
        for fd in fds:
            os.close(fd)
        connection.sendall(f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(f"{code}\n".encode())


def _run(asked: dict[str, Any], fds: list[int]) -> int:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv[1:] = asked["words"]
    return run(asked["words"])


if __name__ == "__main__":
    main()
