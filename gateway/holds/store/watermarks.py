"""How far the ledger is in each bucket, by the bookkeeper of this machine, for its workers: a file in their memory.

A worker tells the script of a reservation how much of the bucket the ledger certainly has. A bucket that has heard of less
is of the past, whoever put it back and while no server was started, and is written anew before a call is admitted.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.holds.store import redis_keys

log = logging.getLogger(__name__)

NUMBER_BYTES = 8
PLACES = {bucket: place for place, bucket in enumerate(redis_keys.ALL_BUCKETS)}

Numbers = Sequence[int] | memoryview
NOTHING_KNOWN: Numbers = (0,) * redis_keys.BUCKETS


class Watermarks:
    """One number a bucket. The bookkeeper alone writes; what was committed is told, and never what may yet fail."""

    def __init__(self, path: Path) -> None:
        self._numbers = memoryview(_mapped(path)).cast("Q")

    @property
    def numbers(self) -> Numbers:
        """The number of the last record that the ledger is known to have, of each bucket at its place; as it is at any time."""
        return self._numbers

    def tell(self, marks: Mapping[str, int]) -> None:
        """Say what the ledger has of some buckets."""
        for bucket, number in marks.items():
            self._numbers[PLACES[bucket]] = number


def _mapped(path: Path) -> mmap.mmap:
    """Map the file, made if it is not there. Where it cannot be, nobody else is told, and nothing is known."""
    size = redis_keys.BUCKETS * NUMBER_BYTES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # a page without a place on a full disk kills who writes to it
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except OSError as error:
        log.warning("how far the ledger is in each bucket is looked up once a second only: %s", error)
        return mmap.mmap(-1, size)
