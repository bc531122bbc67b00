"""How much memory this machine, or the container we run in, has to give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LEAST = 64 * 2**20
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""A control group's limit, in its second and its first version."""


def server_memory_max(root: Path = Path("/")) -> int:
    """Return what an embedded server may use: a third of all there is.

    Writing its file of commands anew takes as much again at worst, and the rest is for the gateway's own processes.
    """
    return max(LEAST, min([_machine(), *_limits(root)]) // 3)


def _machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(root: Path) -> Iterator[int]:
    """Yield the limits of our control group and of those that it is in."""
    for group in _groups(root):
        for name in LIMITS:
            with suppress(OSError, ValueError):  # there is none, or it says "max"
                yield int((group / name).read_text("ascii"))


def _groups(root: Path) -> Iterator[Path]:
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            top = mounted / kinds
            yield from (top / part for part in (path.lstrip("/"), *map(str, Path(path.lstrip("/")).parents)))
    yield from (mounted, mounted / "memory")
