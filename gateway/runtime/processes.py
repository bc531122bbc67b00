"""Finds out whether a process that was started earlier still runs, even if another process has its number by now."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
PAUSE_S = 0.02
STATE, START_TICKS = 0, 19
"""Positions in ``/proc/PID/stat`` after the process's name, which may contain spaces."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as observed: its number, and when it began, where the system reports that (Linux does)."""

    pid: int
    began: str | None

    @classmethod
    def of_pid(cls, pid: int) -> Process:
        return cls(pid, _began(pid))

    @property
    def is_certain(self) -> bool:
        """Whether this process can be distinguished from another process with the same number."""
        return self.began is not None

    def is_running(self) -> bool:
        """Return whether the process runs; if its beginning is unknown, whether any process of ours has its number."""
        return _began(self.pid) == self.began if self.began is not None else _exists(self.pid)

    async def ended(self, patience_s: float) -> bool:
        """Wait until the process has ended, whether or not it is our child; return whether it ended in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        while self.is_running():
            if loop.time() > until:
                return False
            await asyncio.sleep(PAUSE_S)
        return True

    def kill(self) -> None:
        """Kill the process at once if it still runs, unless it might be another program."""
        if self.is_certain and self.is_running():
            os.kill(self.pid, signal.SIGKILL)


def _began(pid: int) -> str | None:
    """Return when a process began, distinct across boots and containers; None once it has ended."""
    try:
        fields = (PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = (PROC / "sys/kernel/random/boot_id").read_text("utf-8").strip()
        numbered_in = (PROC / "self/ns/pid").readlink()
    except OSError:
        return None
    # A zombie has ended, though its parent has not collected its status yet.
    return f"{boot}/{numbered_in}/{fields[START_TICKS]}" if fields[STATE] not in "ZX" else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
