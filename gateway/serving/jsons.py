"""JSON out of bytes and into bytes: by orjson, and by the json module where orjson does not take what JSON allows."""

from __future__ import annotations

import json
from typing import Any

import orjson


def loads(data: bytes) -> Any:
    """Return what a JSON text says; of a name that comes twice, the last.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return orjson.loads(data)
    except ValueError:  # half a surrogate pair, NaN, a byte-order mark: some upstreams send it
        try:
            return json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def dumps(value: Any) -> bytes:
    """Return JSON as it is sent; half a surrogate pair stays what it was."""
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
