"""The data directory: which process may use it, and which processes run on it, recorded for the next start."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gateway.errors import StartupError
from gateway.runtime.private_files import PRIVATE_UMASK, make_private
from gateway.runtime.processes import Process

SOCKET_PATH_BYTES = 104
"""The shortest limit of the supported systems (macOS), the ending zero included."""

PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Child:
    """One process that was started on the directory; ``worker`` is the id of a worker."""

    role: str
    process: Process
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A supervisor's running processes, and the workers that ended before Redis could be notified."""

    children: tuple[Child, ...] = ()
    socket: str | None = None
    ended_workers: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Running:
        children = tuple(
            Child(child["role"], Process(**child["process"]), child["worker"]) for child in record["children"]
        )
        return cls(children, record["socket"], tuple(record["ended_workers"]))


@dataclass(frozen=True, slots=True)
class Identity:
    """A directory's identity, independent of its path: a copy has another identity, a moved directory keeps its own."""

    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Identity | None:
        """Return the identity of the directory at ``path``; None where there is none."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_dev, status.st_ino)


class DataDir:
    """A directory that only one supervisor uses at a time; :func:`claimed` yields it.

    Args:
        in_use: a descriptor of the file that every process of the directory holds open; None for a reading process.
    """

    def __init__(self, path: Path, in_use: int | None = None) -> None:
        self.path = path.absolute()
        self.valkey = self.path / "valkey"
        self.running_file = self.path / "running.json"
        self.held: tuple[int, ...] = () if in_use is None else (in_use,)
        """Descriptors that each process of the directory inherits: its end is observed whatever its process number."""
        self._claimed = None if in_use is None else Identity.of(self.path)

    def remember(self, running: Running) -> None:
        """Write the list of running processes; a reader finds the old or the new list, never half a list.

        Raises:
            OSError: the list cannot be written, or another directory has taken this directory's place.
        """
        identity = Identity.of(self.path)
        if identity is None or identity != self._identity:
            raise OSError(errno.ESTALE, "another directory is in its place", str(self.path))
        socket = running.socket
        if socket is not None and Path(socket).is_relative_to(self.path):
            socket = str(Path(socket).relative_to(self.path))
        record = {"directory": asdict(identity), **asdict(running), "socket": socket}
        part = self.running_file.with_suffix(".part")
        part.write_text(json.dumps(record, indent=1), "utf-8")
        part.replace(self.running_file)

    def remembered(self) -> Running:
        """Return the processes that the last supervisor last recorded as running; none after a clean stop.

        A list that was written in another directory, of which this directory is a copy, is ignored.
        """
        try:
            record = json.loads(self.running_file.read_text("utf-8"))
            running = Running.from_json(record)
            if Identity(**record["directory"]) != self._identity:
                return Running()
            socket = None if running.socket is None else str(self.path / running.socket)
            return replace(running, socket=socket)
        except (OSError, ValueError, KeyError, TypeError):
            # Only a power failure leaves half a file, and then no process in the list still runs.
            return Running()

    async def alone(self, patience_s: float) -> bool:
        """Wait until no process of an earlier start holds the directory, then hold it; return whether that was in time.

        The kernel reports this, also for processes whose numbers mean nothing here, such as those of another container.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while not all(_locked(descriptor) for descriptor in self.held):
            if loop.time() > until:
                return False
            await asyncio.sleep(PAUSE_S)
        return True

    def forget_counts(self) -> None:
        """Remove the counts of the processes of an earlier start."""
        shutil.rmtree(self.path / "metrics", ignore_errors=True)

    def new_socket(self) -> Path:
        """Return where Valkey listens: in the directory, or in a private directory where that path is too long."""
        inside = self.valkey / "valkey.sock"
        if len(os.fsencode(inside)) < SOCKET_PATH_BYTES:
            return inside
        return Path(tempfile.mkdtemp(prefix="tokencap-")) / "valkey.sock"

    def drop_socket(self, socket: Path) -> None:
        """Remove a socket without a listener, and its private directory if it has one."""
        if socket.parent == self.valkey and Identity.of(self.path) != self._identity:
            return
        socket.unlink(missing_ok=True)
        if socket.parent != self.valkey:
            with suppress(OSError):
                socket.parent.rmdir()

    @property
    def _identity(self) -> Identity | None:
        """Return the claimed directory's identity, or, for a process that only reads, the present directory's."""
        return self._claimed or Identity.of(self.path)


@contextmanager
def claimed(path: Path) -> Iterator[DataDir]:
    """Yield the directory, created if missing, for this process alone until the block ends.

    The kernel holds the lock and releases it when the process ends, however it ends. Only the user of this process
    can read the directory's content and what this process and its children create from here on.

    Raises:
        StartupError: another process uses the directory, another user owns it, or it cannot be written.
    """
    path = path.absolute()
    umask = os.umask(PRIVATE_UMASK)
    try:
        with ExitStack() as stack:
            lock, in_use = _opened(path, stack)
            if not _locked(lock):
                owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "another process"
                raise StartupError(f"The data directory {path} is in use by process {owner}.")
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield DataDir(path, in_use)
    finally:
        os.umask(umask)


def _opened(path: Path, stack: ExitStack) -> tuple[int, int]:
    """Return descriptors of the directory's two locks, which ``stack`` closes."""
    try:
        make_private(path, os.geteuid())
        (path / "valkey").mkdir(mode=0o700, exist_ok=True)
        descriptors = []
        for name in ("lock", "in-use"):
            descriptors.append(os.open(path / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            stack.callback(os.close, descriptors[-1])
    except OSError as error:
        raise StartupError(f"The data directory {path} cannot be used: {error.strerror}.") from error
    return descriptors[0], descriptors[1]


def _locked(descriptor: int) -> bool:
    """Lock a file for all processes that hold this descriptor or an inherited copy; return whether that succeeded."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
