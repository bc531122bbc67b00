"""What becomes of an answer whose caller has hung up: it ends there, or is read to its end, so many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

FINISHED_AT_ONCE = 256
"""Answers that a worker reads to their end though nobody waits for them; one more is closed instead."""


class Hangups:
    """Decides, for all calls of a worker.

    Args:
        finishes: whether a whole answer is read to its end, so that it is known what it came to.
        most: at once.
    """

    def __init__(self, *, finishes: bool, most: int = FINISHED_AT_ONCE) -> None:
        self._finishes = finishes
        self._free = most

    @contextmanager
    def of(self, *, comes_whole: bool) -> Iterator[Callable[[], bool] | None]:
        """Yield what to ask once the caller has hung up, whether its answer goes on; None where none does."""
        if not (self._finishes and comes_whole):
            yield None
            return
        places = 0

        def goes_on() -> bool:
            nonlocal places
            if self._free == 0:
                return False
            self._free -= 1
            places += 1
            return True

        try:
            yield goes_on
        finally:
            self._free += places
