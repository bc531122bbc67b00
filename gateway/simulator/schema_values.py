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
"""The values of texts of these formats. A ``pattern`` is not followed."""

DEPTH_MOST = 16
"""The depth of a value: below it a recursive schema ends in null."""

PIECE = re.compile(r"\W+|\w+")


def pieces_for(schema: Any) -> tuple[str, ...]:
    """Return JSON that fits ``schema``, token by token; without requirements, a note that the value is simulated."""
    value = fitting(schema)
    text = json.dumps({WORD: True} if value in ({}, None) else value, separators=(",", ":"), ensure_ascii=False)
    return tuple(PIECE.findall(text))


def fitting(schema: Any) -> Any:
    """Return a value that fits a schema, with its required properties; null where ``schema`` is no schema."""
    return _fit(schema, schema, DEPTH_MOST)


def _fit(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or not depth:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _fit(_resolved(reference, root), root, depth - 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if isinstance(values := schema.get("enum"), list) and values:
        return values[0]
    for name in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(name), list) and choices:
            return _fit(choices[0], root, depth - 1)
    parts = schema.get("allOf")
    if isinstance(parts, list) and parts:
        fitted = [_fit(part, root, depth - 1) for part in parts]
        objects = [mapping for mapping in fitted if isinstance(mapping, dict)]
        return {name: value for mapping in objects for name, value in mapping.items()} if objects else fitted[0]
    kind = schema.get("type", "object" if "properties" in schema else None)
    return _of_type(kind[0] if isinstance(kind, list) and kind else kind, schema, root, depth)


def _of_type(kind: Any, schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    if kind == "object":
        properties, required = schema.get("properties"), schema.get("required")
        schemas = properties if isinstance(properties, Mapping) else {}
        names = required if isinstance(required, list) else []
        return {str(name): _fit(schemas.get(name), root, depth - 1) for name in names}
    if kind == "array":
        return [_fit(schema.get("items"), root, depth - 1)] * _count(schema.get("minItems"))
    if kind == "string":
        text = TEXTS.get(str(schema.get("format")), WORD)
        min_length, max_length = _count(schema.get("minLength")), schema.get("maxLength")
        return text.ljust(min_length, "-")[: max_length if isinstance(max_length, int) else None]
    if kind in ("integer", "number"):
        return _number(schema, step=1 if kind == "integer" else schema.get("multipleOf", 1))
    return {"boolean": True}.get(str(kind))


def _number(schema: Mapping[str, Any], step: Any) -> Any:
    """Return the smallest allowed number; without a lower bound 1, or less where the upper bound requires it."""
    for name, added in (("minimum", 0), ("exclusiveMinimum", step)):
        if isinstance(minimum := schema.get(name), int | float) and not isinstance(minimum, bool):
            return minimum + added
    for name, subtracted in (("maximum", 0), ("exclusiveMaximum", step)):
        if isinstance(maximum := schema.get(name), int | float) and not isinstance(maximum, bool):
            return min(1, maximum - subtracted)
    return 1


def _count(value: Any) -> int:
    return min(max(value, 0), 64) if isinstance(value, int) else 0


def _resolved(reference: str, root: Any) -> Any:
    """Return the part of a schema that ``#/a/b`` names, or None."""
    node = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name:
            node = node.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node
