"""Starts ``tokencap`` as a user does: a process of its own, an environment, a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread

import httpx

from gateway.runtime.data_directory import Child, DataDir
from gateway.settings import Settings
from tests.gateway.cli.prefork import Started, forks
from tests.loop.rig import Rig
from tests.waiting import until

START_S = 60.0
STOP_S = 40.0
HANGS_S = 600.0
"""A command that takes longer hangs: on a busy machine an estimate takes minutes."""
COMMAND = (sys.executable, "-m", "gateway.cli.main")


def environment(directory: Path, **overrides: object) -> dict[str, str]:
    """Return this process's environment with no settings but the given ones."""
    ours = {name: value for name, value in os.environ.items() if not name.upper().startswith("TOKENCAP_")}
    settings = {"data_dir": directory, "port": 0, "shutdown_s": 10, **overrides}
    return ours | {f"TOKENCAP_{name.upper()}": str(value) for name, value in settings.items()}


def tokencap(
    directory: Path, *words: str, stdin: str | None = None, **overrides: object
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, in the directory above the data's, where there is no ``tokencap.toml``."""
    return forks().run(words, environment(directory, **overrides), directory.parent, stdin, HANGS_S)


@dataclass(frozen=True)
class Serving:
    """A running ``tokencap serve``."""

    process: subprocess.Popen[bytes] | Started
    data: DataDir
    url: str
    output: Queue[str]
    errors: Queue[str]
    redis_url: str | None
    """Where its Redis is, None where the server is its own."""

    def admin_token(self) -> str:
        """Return the token that it printed; wait for it, since it comes on the second line."""
        line: str = until(lambda: next((line for line in self.output.queue if line.startswith("Admin token")), ""))
        return line.rsplit(maxsplit=1)[-1]

    def children(self, role: str | None = None) -> list[Child]:
        """Return the processes it has started."""
        return [child for child in self.data.remembered().children if role in (None, child.role)]

    def rig(self, token: str) -> Rig:
        """Return the ways to sell and to look that the loop's tests have."""
        admin = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=30)
        redis_url = self.redis_url or f"unix://{self.data.remembered().socket}"
        return Rig([self.url], "", Settings(redis_url=redis_url), admin)

    def stop(self) -> int:
        """Stop it in order and return its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_S)


@contextmanager
def serving(
    directory: Path, *words: str, program: tuple[str, ...] | None = None, **overrides: object
) -> Iterator[Serving]:
    """Run ``tokencap serve`` until the block ends; yield once it says where it listens.

    With a ``program`` all processes are started anew, as production starts them.
    """
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    process = started(
        program, ["serve", *words], environment(directory, **overrides), directory.parent, out_end, err_end
    )
    output, errors, data = Queue[str](), Queue[str](), DataDir(directory)
    readers = [_reader(out, output), _reader(err, errors)]
    redis_url = str(overrides["redis_url"]) if "redis_url" in overrides else None
    try:
        until(lambda: not output.empty() or process.poll() is not None, START_S)
        assert process.poll() is None, "\n".join(errors.queue)
        yield Serving(process, data, output.queue[0].split()[-1], output, errors, redis_url)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)
        for child in data.remembered().children:
            child.process.kill()  # a test that failed leaves nothing running
        for reader in readers:
            reader.join()


def started(
    program: tuple[str, ...] | None, words: list[str], env: dict[str, str], cwd: Path, out: int, err: int
) -> subprocess.Popen[bytes] | Started:
    """Start a command: as a fork, or by a ``program`` as a shell would. ``out`` and ``err`` become its own."""
    try:
        if program is not None:
            return subprocess.Popen([*program, *words], env=env, cwd=cwd, stdout=out, stderr=err)
        return forks().gateway(words, env, cwd, out, err)
    finally:
        os.close(out)
        os.close(err)


def _reader(pipe: int, lines: Queue[str]) -> Thread:
    def read() -> None:
        with os.fdopen(pipe, encoding="utf-8") as stream:
            for line in stream:
                lines.put(line.rstrip("\n"))

    thread = Thread(target=read)
    thread.start()
    return thread
