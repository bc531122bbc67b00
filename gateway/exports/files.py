"""Writes an export to a file that is either absent or complete, with a manifest of its content beside it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.exports.formats import Format
from pricing.usage import UsageRecord

SCHEMA = 1
"""The version of the records' fields; it rises when a field is added, renamed or given another meaning."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Figures about the content of an export, for its receiver to check it and to compare a repeated export."""

    schema: int
    format: str
    file: str
    size_bytes: int
    sha256: str
    records: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    billed_output_tokens: int
    charge_nanousd: int
    first_id: str | None
    last_id: str | None
    closed: bool
    """Whether the whole span is closed: then another export of it has the same bytes."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=2).encode() + b"\n"


def manifest_path(path: Path) -> Path:
    """Return the path of the manifest of an export: beside it, with ``.manifest.json`` added to its name."""
    return path.with_name(path.name + ".manifest.json")


def write_file(path: Path, written_as: Format, records: Iterable[UsageRecord], *, is_closed: bool) -> Manifest:
    """Write records to ``path`` and their manifest beside it, replacing existing files.

    Both files are complete and on disk under other names (``.part``) before either is renamed, the manifest last. If
    anything fails before that, existing files are unchanged and no ``.part`` file is left.
    """
    part, manifest_part = _part_of(path), _part_of(manifest_path(path))
    try:
        manifest = _write(part, path.name, written_as, records, is_closed=is_closed)
        with _flushed(manifest_part) as file:
            file.write(manifest.to_json())
        part.replace(path)
        manifest_part.replace(manifest_path(path))
    finally:
        part.unlink(missing_ok=True)
        manifest_part.unlink(missing_ok=True)
    _flush_directory(path.parent)
    return manifest


def _write(part: Path, name: str, written_as: Format, records: Iterable[UsageRecord], *, is_closed: bool) -> Manifest:
    counters = ManifestSums()
    digest, size = hashlib.sha256(), 0
    with _flushed(part) as file:
        for chunk in written_as.encode(counters.counting(records)):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return Manifest(
        schema=SCHEMA,
        format=written_as.name,
        file=name,
        size_bytes=size,
        sha256=digest.hexdigest(),
        records=counters.records,
        **counters.sums,
        first_id=counters.first_id,
        last_id=counters.last_id,
        closed=is_closed,
    )


class ManifestSums:
    """Sums over the records that ``counting`` passes on."""

    def __init__(self) -> None:
        self.records = 0
        self.first_id: str | None = None
        self.last_id: str | None = None
        self.sums = dict.fromkeys(
            (
                *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
                *("billed_output_tokens", "charge_nanousd"),
            ),
            0,
        )

    def counting(self, records: Iterable[UsageRecord]) -> Iterator[UsageRecord]:
        for record in records:
            self.records += 1
            self.first_id = self.first_id or record["id"]
            self.last_id = record["id"]
            for field in self.sums:
                self.sums[field] += record[field]
            yield record


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextmanager
def _flushed(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that only its owner can read, whose content is on disk at the end."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
