"""Usage records as JSON Lines: one object on each line, with the contract's fields in order. The canonical export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from pricing.usage import FIELDS, UsageRecord

CHUNK_CHARACTERS = 64 * 1024
"""Lines are collected up to this size before they are encoded: a good size for files, hashes and sockets."""


def chunked(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines as UTF-8, many in one chunk.

    A line is never split between two chunks; without lines there is no chunk. Every text format is chunked here.
    """
    waiting: list[str] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= CHUNK_CHARACTERS:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode()


def encode(records: Iterable[UsageRecord]) -> Iterator[bytes]:
    """Yield the file in chunks: UTF-8, ``\\n`` after each line.

    An empty field is null, or left out where the field is newer than the first version of the records.
    """
    return chunked(_line(record) for record in records)


def _line(record: UsageRecord) -> str:
    ordered = {field: record[field] for field in FIELDS if field in record}
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
