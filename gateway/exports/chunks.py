"""Joins lines to chunks of a size that files, hashes and sockets like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

CHUNK_CHARACTERS = 64 * 1024


def chunked(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield the lines as UTF-8, many at once; a line is never split. Nothing at all yields nothing."""
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
