"""The last record that the ledger has of each bucket, passed from the bookkeeper to the workers in a mapped file.

They are processes of one machine. A worker sends the reserving script the number of the last record that the ledger
certainly has of the bucket. A bucket with a lower watermark is stale, even if no server was restarted, and is rebuilt
before a call is admitted.
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
    """One number a bucket. Only the bookkeeper writes: numbers of committed records, never of records that may fail."""

    def __init__(self, path: Path) -> None:
        self._numbers = memoryview(_mapped(path)).cast("Q")

    @property
    def numbers(self) -> Numbers:
        """For each bucket, by place, the number of the last record that the ledger is known to have; always current."""
        return self._numbers

    def write(self, marks: Mapping[str, int]) -> None:
        """Write the last record that the ledger has of some buckets."""
        for bucket, number in marks.items():
            self._numbers[PLACES[bucket]] = number


def _mapped(path: Path) -> mmap.mmap:
    """Map the file, creating it if needed. If that fails, the numbers stay in this process and no other sees them."""
    size = redis_keys.BUCKETS * NUMBER_BYTES
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # else a full disk kills the writer
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except OSError as error:
        log.warning("how far the ledger is in each bucket is looked up once a second only: %s", error)
        return mmap.mmap(-1, size)
