"""Keeps a data directory private to its owner: checks who owns it and its content, and sets their modes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import StartupError

OURS = frozenset(
    {"lock", "in-use", "running.json", "ledger.sqlite", "valkey", "metrics", "watermarks", "installation.json"}
)
"""Names of our files; every directory that was used before has at least one of them."""

NOBODYS = frozenset({"lost+found"})
"""Names that a new volume contains."""

OWNER = 0o700
PRIVATE_UMASK = 0o077
"""With this umask every file that a process creates is accessible only to its owner."""


def make_private(path: Path, user: int) -> None:
    """Create the directory if missing, and remove all permissions on it and its content for users other than ``user``.

    Symbolic links are left unchanged. The directory itself comes first, so that no other user reaches its content.

    Raises:
        StartupError: the directory or something in it belongs to another user, or its content is not tokencap's.
    """
    path.mkdir(mode=OWNER, parents=True, exist_ok=True)
    if not _is_ours_or_new(path):
        raise StartupError(
            f"The data directory {path} holds files that are not tokencap's: name a directory of its own."
        )
    for entry in _all_in(path):
        status = entry.lstat() if entry != path else entry.stat()
        if stat.S_ISLNK(status.st_mode):
            continue
        if status.st_uid != user:
            raise StartupError(
                f"{entry} belongs to user {status.st_uid} and this is user {user}: "
                "start the gateway as its owner, or give the data directory to this user (chown -R)."
            )
        if status.st_mode & ~OWNER & 0o7777:
            entry.chmod(status.st_mode & OWNER)


def _is_ours_or_new(path: Path) -> bool:
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} - NOBODYS
    return not names or not names.isdisjoint(OURS)


def _all_in(path: Path) -> Iterator[Path]:
    """Yield the directory, then its content, each directory before its own content."""
    yield path
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if name not in NOBODYS:
                yield Path(folder, name)
