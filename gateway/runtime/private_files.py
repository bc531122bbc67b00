"""Keeps a data directory private to its owner: which other users it may belong to, and the modes of its content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import StartupError

OURS = frozenset(
    {"lock", "in-use", "running.json", "ledger.sqlite", "valkey", "metrics", "watermarks", "installation.json"}
)
"""Names of which a directory that was used before contains at least one."""

NOBODYS = frozenset({"lost+found"})
"""Names that a new volume contains."""

OWNER = 0o700
PRIVATE_UMASK = 0o077
"""With this umask every file that a process creates is its owner's alone."""


def make_private(path: Path, user: int) -> None:
    """Create the directory if it is missing, and remove all permissions on it and its content for users other than ``user``.

    Symbolic links are left alone. The directory itself comes first, so that nobody else reaches its content meanwhile.

    Raises:
        StartupError: the directory or something in it belongs to another user, or its content is not tokencap's.
    """
    path.mkdir(mode=OWNER, parents=True, exist_ok=True)
    if not _is_ours_or_new(path):
        raise StartupError(
            f"The data directory {path} holds files that are not tokencap's: name a directory of its own."
        )
    for found in _all_in(path):
        about = found.lstat() if found != path else found.stat()
        if stat.S_ISLNK(about.st_mode):
            continue
        if about.st_uid != user:
            raise StartupError(
                f"{found} belongs to user {about.st_uid} and this is user {user}: "
                "start the gateway as its owner, or give the data directory to this user (chown -R)."
            )
        if about.st_mode & ~OWNER & 0o7777:
            found.chmod(about.st_mode & OWNER)


def _is_ours_or_new(path: Path) -> bool:
    names = {found.name for found in path.iterdir() if not found.name.startswith(".")} - NOBODYS
    return not names or not names.isdisjoint(OURS)


def _all_in(path: Path) -> Iterator[Path]:
    """Yield the directory, then its content, each directory before its own content."""
    yield path
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if name not in NOBODYS:
                yield Path(folder, name)
