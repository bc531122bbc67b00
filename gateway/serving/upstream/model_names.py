"""The names that callers may use for the one model: its own, and others, of which the end may be left open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

OPEN = "*"
"""Ends a name that stands for all that begin as it does: ``claude-*``."""


class Names:
    """A set of names; the ones that are listed are those without an open end."""

    __slots__ = ("_beginnings", "_whole")

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._whole = frozenset(name for name in names if not name.endswith(OPEN))
        self._beginnings = tuple(name.removesuffix(OPEN) for name in names if name.endswith(OPEN))

    def __contains__(self, name: str) -> bool:
        return name in self._whole or name.startswith(self._beginnings)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._whole))
