"""One way to write JSON, so that a hash of it means something."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces; a whole number is written as one, however it came.

    So 4.0 and 4 are the same, as they are to programs whose only numbers are doubles.

    Raises:
        ValueError: a number is not finite.
        TypeError: something is not JSON.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, lower-case hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
