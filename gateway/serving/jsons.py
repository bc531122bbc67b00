"""JSON out of bytes and into bytes: by orjson, and by the json module where orjson does not take what JSON allows."""

from __future__ import annotations

import json
from typing import Any

import orjson

from gateway import json_bounds

PARTS_MOST = 2_000_000
"""Names, objects and lists in one text of the upstream's: as many as an answer with all its log probabilities has."""

VALUES_MOST = 8_000_000


def loads(data: bytes) -> Any:
    """Return what a JSON text says; of a name that comes twice, the last.

    Raises:
        ValueError: it is no JSON, nested too deeply, or has too much in it.
    """
    json_bounds.check(data, PARTS_MOST, VALUES_MOST)
    try:
        return orjson.loads(data)
    except ValueError:  # half a surrogate pair, NaN, a byte-order mark: some upstreams send it
        return json.loads(data)


def dumps(value: Any) -> bytes:
    """Return JSON as it is sent; half a surrogate pair stays what it was."""
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
