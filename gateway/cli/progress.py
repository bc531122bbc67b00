"""Shows the progress of long work on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

EVERY = 1_000
EVERY_S = 1.0


def counted(items: Iterable[Item], noun: str) -> Iterator[Item]:
    """Yield the items, and show their number so far on the last line of the terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    for number, item in enumerate(items, 1):
        if number % EVERY == 0:
            _put(f"{number:,} {noun}")
        yield item
    _put("")


@contextmanager
def timed(doing: str) -> Iterator[None]:
    """Show, for as long as the block takes, what is being done and for how many seconds; short work shows nothing."""
    if not sys.stderr.isatty():
        yield
        return
    began, is_done = time.monotonic(), threading.Event()

    def tick() -> None:
        while not is_done.wait(EVERY_S):
            _put(f"{doing}: {time.monotonic() - began:.0f} s")

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        is_done.set()
        ticking.join()
        _put("")


def _put(text: str) -> None:
    """Replace the last line of the terminal."""
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
