"""The simplest value that fits a JSON schema: for the arguments of a tool, and for an answer in a required form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

WORD = "simulated"
"""The value of any text in a schema."""

TEXTS = {
    **{"date-time": "2000-01-01T00:00:00Z", "date": "2000-01-01", "time": "00:00:00Z", "duration": "P1D"},
    **{"email": "simulated@example.com", "hostname": "example.com", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1"},
    **{"uri": "https://example.com/", "uuid": "00000000-0000-4000-8000-000000000000"},
}
"""The same for texts of these formats. A ``pattern`` is not followed."""

DEPTH_MOST = 16
"""The depth of a value: below it a recursive schema ends in null."""

PIECE = re.compile(r"\W+|\w+")


def pieces_for(schema: Any) -> tuple[str, ...]:
    """Return JSON that fits ``schema``, token by token; for a schema without requirements, a note that it is simulated."""
    value = fitting(schema)
    text = json.dumps({WORD: True} if value in ({}, None) else value, separators=(",", ":"), ensure_ascii=False)
    return tuple(PIECE.findall(text))


def fitting(schema: Any) -> Any:
    """Return a value that fits a schema, with its required properties; null fits what is no schema."""
    return _fit(schema, schema, DEPTH_MOST)


def _fit(schema: Any, whole: Any, deep: int) -> Any:
    if not isinstance(schema, Mapping) or not deep:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _fit(_found(reference, whole), whole, deep - 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if isinstance(values := schema.get("enum"), list) and values:
        return values[0]
    for name in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(name), list) and choices:
            return _fit(choices[0], whole, deep - 1)
    parts = schema.get("allOf")
    if isinstance(parts, list) and parts:
        fitted = [_fit(part, whole, deep - 1) for part in parts]
        objects = [one for one in fitted if isinstance(one, dict)]
        return {name: value for one in objects for name, value in one.items()} if objects else fitted[0]
    kind = schema.get("type", "object" if "properties" in schema else None)
    return _of_type(kind[0] if isinstance(kind, list) and kind else kind, schema, whole, deep)


def _of_type(kind: Any, schema: Mapping[str, Any], whole: Any, deep: int) -> Any:
    if kind == "object":
        properties, required = schema.get("properties"), schema.get("required")
        known = properties if isinstance(properties, Mapping) else {}
        names = required if isinstance(required, list) else []
        return {str(name): _fit(known.get(name), whole, deep - 1) for name in names}
    if kind == "array":
        return [_fit(schema.get("items"), whole, deep - 1)] * _count(schema.get("minItems"))
    if kind == "string":
        text = TEXTS.get(str(schema.get("format")), WORD)
        least, most = _count(schema.get("minLength")), schema.get("maxLength")
        return text.ljust(least, "-")[: most if isinstance(most, int) else None]
    if kind in ("integer", "number"):
        return _number(schema, step=1 if kind == "integer" else schema.get("multipleOf", 1))
    return {"boolean": True}.get(str(kind))


def _number(schema: Mapping[str, Any], step: Any) -> Any:
    """Return the least allowed number, 1 where there is no lower bound."""
    for name, more in (("minimum", 0), ("exclusiveMinimum", step)):
        if isinstance(least := schema.get(name), int | float) and not isinstance(least, bool):
            return least + more
    for name, less in (("maximum", 0), ("exclusiveMaximum", step)):
        if isinstance(most := schema.get(name), int | float) and not isinstance(most, bool):
            return min(1, most - less)
    return 1


def _count(given: Any) -> int:
    return min(max(given, 0), 64) if isinstance(given, int) else 0


def _found(reference: str, whole: Any) -> Any:
    """Return the part of a schema that ``#/a/b`` names, or None."""
    place = whole
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name:
            place = place.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(place, Mapping) else None
    return place
