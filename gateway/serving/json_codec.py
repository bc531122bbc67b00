"""Parses and writes JSON: with orjson, and with the json module where orjson refuses valid or usual JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from gateway import json_bounds

PARTS_MOST = 2_000_000
"""The most names, objects and lists in JSON of the upstream: an answer with all log probabilities may have as many."""

VALUES_MOST = 8_000_000


def loads(data: bytes) -> Any:
    """Return the value of a JSON text. A repeated name has its last value; NaN and infinity are null.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or contains too much.
    """
    json_bounds.check(data, PARTS_MOST, VALUES_MOST)
    try:
        return orjson.loads(data)
    except ValueError:  # half a surrogate pair, NaN or a byte-order mark, which some upstreams send
        return json.loads(data, parse_constant=lambda _: None, parse_float=_finite)


def dumps(value: Any) -> bytes:
    """Return a value as JSON; half a surrogate pair is written as U+FFFD, NaN and infinity as null."""
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        text = json.dumps(_without_nan(value), separators=(",", ":"), ensure_ascii=False)
        return whole_characters(text).encode()


def whole_characters(text: str) -> str:
    """Return a text with its surrogate pairs joined, and with U+FFFD in place of each unpaired surrogate."""
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
