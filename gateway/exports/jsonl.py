"""Usage records as JSON Lines: one object a line, the contract's fields in the contract's order. The canonical export."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from gateway.exports.chunks import chunked
from pricing.usage import FIELDS, UsageRecord


def encode(records: Iterable[UsageRecord]) -> Iterator[bytes]:
    """Yield the file in chunks: UTF-8, ``\\n`` after each line; null, or left out, where a field says nothing."""
    return chunked(_line(record) for record in records)


def _line(record: UsageRecord) -> str:
    ordered = {field: record[field] for field in FIELDS if field in record}
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
