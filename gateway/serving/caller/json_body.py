"""Parses a caller's JSON strictly: refuses a body in which two parsers could read different limits."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import jiter

from gateway import json_bounds
from gateway.errors import BadRequest
from gateway.json_bounds import OutOfBounds
from pricing.usage import END_USER_MOST

Body = dict[str, Any]

LIMIT_MOST = 2**53 - 1
"""The largest requested limit that a usage record can hold."""


def read_body(raw: bytes, encoding: str | None) -> Body:
    """Return the JSON object in a body. A large body was checked by ``json_bounds.survey`` before.

    Raises:
        BadRequest: the body is compressed, not UTF-8, not JSON, not an object, nested too deeply, or has a key twice in
            one object.
    """
    if encoding not in (None, "", "identity"):
        raise BadRequest("Send the body without content-encoding.", param="content-encoding")
    try:
        body = _read(raw)
    except OutOfBounds as error:
        raise too_complex(error) from error
    except UnicodeDecodeError as error:
        raise BadRequest("The body is not UTF-8.", code="invalid_json") from error
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(body, dict):
        raise BadRequest("The body is a JSON object.", code="invalid_json")
    return body


def too_complex(error: OutOfBounds) -> BadRequest:
    """Return the refusal of a body whose contents exceed the bounds."""
    return BadRequest(f"The body is too complex: {error}.", code="invalid_json")


def _read(raw: bytes) -> Any:
    """Return the value of strict JSON, parsed by jiter. Where jiter refuses, the json module parses the text: it names
    the fault, and accepts a little more, such as half a surrogate pair."""
    try:
        return jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError:
        json_bounds.check(raw)  # the json module does not bound the depth
        return _STRICT.decode(raw.decode("utf-8"))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Body:
    result = dict(pairs)
    if len(result) != len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise BadRequest(f"The key {name[:64]!r} comes twice.", code="duplicate_key", param=name[:64])
            names.add(name)
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)


def positive(body: Body, field: str, most: int = LIMIT_MOST) -> int | None:
    """Return a limit, or None where it is absent or null.

    Raises:
        BadRequest: the limit is not a whole number from 1 to ``most``.
    """
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{field} is a positive integer.", code="invalid_type", param=field)
    if value < 1:
        raise BadRequest(f"{field} is at least 1.", code="integer_below_min_value", param=field)
    if value > most:
        raise BadRequest(f"{field} is at most {most}.", code="integer_above_max_value", param=field)
    return value


def flag(body: Body, field: str) -> bool:
    """Return a boolean that is false where it is absent or null.

    Raises:
        BadRequest: the value is not a boolean.
    """
    value = body.get(field)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequest(f"{field} is true or false.", code="invalid_type", param=field)


def least(body: Body, *fields: str) -> int | None:
    """Return the smallest limit among these fields of a body, or None where it has none of them.

    Raises:
        BadRequest: a limit is not a positive integer.
    """
    smallest: int | None = None
    for field in fields:
        limit = positive(body, field) if field in body else None
        if limit is not None and (smallest is None or limit < smallest):
            smallest = limit
    return smallest


def end_user(body: Body, *fields: str, within: str | None = None) -> str | None:
    """Return the end user that a body names, in the first of ``fields`` that is not empty, as records keep it.

    A name that is longer than records have room for, or has unprintable characters, is replaced by its SHA-256.
    ``within`` names the object that has the fields, where the body itself does not have them; it may be missing.

    Raises:
        BadRequest: one of the fields is not a string.
    """
    holder = body if within is None else body.get(within)
    if not isinstance(holder, dict):
        return None
    for field in fields:
        if field not in holder:
            continue
        value = holder[field]
        if value is not None and not isinstance(value, str):
            param = field if within is None else f"{within}.{field}"
            raise BadRequest(f"{param} is a string.", code="invalid_type", param=param)
        if value:
            return value if len(value) <= END_USER_MOST and value.isprintable() else _digest(value)
    return None


def _digest(text: str) -> str:
    return "sha256:" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def named(body: Body, field: str) -> str:
    """Return a required string.

    Raises:
        BadRequest: the field is missing or is not a string.
    """
    value = body.get(field)
    if not isinstance(value, str):
        raise BadRequest(f"{field} is a string.", code="invalid_type", param=field)
    return value
