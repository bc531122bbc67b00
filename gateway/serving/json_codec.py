"""JSON from bytes and to bytes: by orjson, and by the json module where orjson refuses what JSON allows."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from gateway import json_bounds

PARTS_MOST = 2_000_000
"""The most names, objects and lists in a text of the upstream: an answer with all its log probabilities has as many."""

VALUES_MOST = 8_000_000


def loads(data: bytes) -> Any:
    """Return the value of a JSON text. A name that comes twice has its last value; NaN and infinity are null.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or contains too much.
    """
    json_bounds.check(data, PARTS_MOST, VALUES_MOST)
    try:
        return orjson.loads(data)
    except ValueError:  # half a surrogate pair, NaN, a byte-order mark: some upstreams send it
        return json.loads(data, parse_constant=lambda _: None, parse_float=_finite)


def dumps(value: Any) -> bytes:
    """Return JSON as it is sent; half a surrogate pair is U+FFFD, NaN and infinity are null."""
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        text = json.dumps(_without_nan(value), separators=(",", ":"), ensure_ascii=False)
        return whole_characters(text).encode()


def whole_characters(text: str) -> str:
    """Return a text with its surrogate pairs joined and U+FFFD in place of their halves."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _finite(literal: str) -> float | None:
    number = float(literal)
    return number if math.isfinite(number) else None


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
