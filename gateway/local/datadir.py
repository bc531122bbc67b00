"""The data directory: who may use it now, and what runs on it, remembered for a start after a killed one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.errors import StartupError
from gateway.local.processes import Process

SOCKET_PATH_BYTES = 104
"""What the shortest of the systems (macOS) has room for, the ending zero included."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process that was started on the directory; ``worker`` is a worker's id."""

    role: str
    process: Process
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """What a supervisor has running, and the workers that ended before Redis could be told."""

    children: tuple[Child, ...] = ()
    socket: str | None = None
    ended_workers: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Running:
        children = tuple(
            Child(child["role"], Process(**child["process"]), child["worker"]) for child in given["children"]
        )
        return cls(children, given["socket"], tuple(given["ended_workers"]))


class DataDir:
    """A directory that only one supervisor uses at a time; :func:`claimed` hands it out."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.valkey = self.path / "valkey"
        self.running_file = self.path / "running.json"

    def remember(self, running: Running) -> None:
        """Write down what runs; a reader finds the old list or the new one, never half of one."""
        written = self.running_file.with_suffix(".part")
        written.write_text(running.to_json(), "utf-8")
        written.replace(self.running_file)

    def remembered(self) -> Running:
        """Return what the last supervisor had running when it was last heard of; nothing after a clean stop."""
        try:
            return Running.from_json(json.loads(self.running_file.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            # Only a machine that lost power leaves half a file, and then nothing of it runs any more.
            return Running()

    def forget_counts(self) -> None:
        """Remove what the processes of an earlier start have counted."""
        shutil.rmtree(self.path / "metrics", ignore_errors=True)

    def new_socket(self) -> Path:
        """Return where Valkey listens: in the directory, or in a private one where that path is too long."""
        inside = self.valkey / "valkey.sock"
        if len(os.fsencode(inside)) < SOCKET_PATH_BYTES:
            return inside
        return Path(tempfile.mkdtemp(prefix="tokencap-")) / "valkey.sock"

    def drop_socket(self, socket: Path) -> None:
        """Remove a socket nobody listens on, with its private directory if it had one."""
        socket.unlink(missing_ok=True)
        if socket.parent != self.valkey:
            with suppress(OSError):
                socket.parent.rmdir()


@contextmanager
def claimed(path: Path) -> Iterator[DataDir]:
    """Yield the directory, made if it is not there, for this process alone until the block ends.

    The lock is the kernel's and ends with the process, however it ends.

    Raises:
        StartupError: another process uses the directory, or it cannot be written.
    """
    data = DataDir(path)
    lock = _open_lock(data)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "another process"
            raise StartupError(f"The data directory {data.path} is in use by process {owner}.") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield data
    finally:
        os.close(lock)


def _open_lock(data: DataDir) -> int:
    try:
        data.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.valkey.mkdir(mode=0o700, exist_ok=True)
        return os.open(data.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartupError(f"The data directory {data.path} cannot be used: {error.strerror}.") from error
