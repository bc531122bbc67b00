"""Answers that come whole: requested as their callers request them, and relayed in the bytes that came."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jiter
import orjson

from gateway.serving.caller.json_body import Body
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.json_codec import dumps
from gateway.serving.upstream.profiles import Profile

_MISSING = object()
_BEGIN = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*")
_NAME = re.compile(r'"((?:[^"\\]|\\.)*+)"[ \t\n\r]*:[ \t\n\r]*')
_COLON = rb"[ \t\n\r]*:[ \t\n\r]*"
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'\{(?:[^{}"]++|' + _TEXT + rb")*+\}"
_DEEPER = rb'\{(?:[^{}"]++|' + _TEXT + rb"|" + _FLAT + rb")*+\}"
_COMMA = re.compile(r"[ \t\n\r]*(?:,[ \t\n\r]*|(?=\}))")


def comes_whole(profile: Profile, body: Body, choices: int = 1) -> bool:
    """Return whether the upstream is asked for a whole answer: its caller wants one, and all of it can be counted."""
    return not (profile.always_streams or body.get("stream") or (profile.counts_choices_apart and choices > 1))


def streamed(body: Body, wanted: Parameters) -> Body:
    """Return the field that asks the upstream to stream, or not to, as the caller wrote it."""
    if not wanted.comes_whole:
        return {"stream": True}
    return {"stream": False} if body.get("stream") is False else {}


def as_it_came(raw: bytes, answer: Any) -> bytes:
    """Return an answer as JSON, in which unchanged members keep their bytes from ``raw``.

    Member by member of the one object: what the gateway has changed (the model's name, the usage, a text that was cut)
    is written again, and so is what not every reader of JSON accepts.

    Args:
        raw: the answer as the upstream sent it.
        answer: the same as its caller is to get it.
    """
    if not isinstance(answer, dict):
        return dumps(answer)
    said = _strict(raw)
    if said == answer:
        return raw
    if said is not None and (replaced := _replaced(raw, said, answer)) is not None:
        return replaced
    same = {name for name, value in said.items() if answer.get(name, _MISSING) == value} if said is not None else ()
    left, parts, is_same = dict(answer), [], True
    try:
        for name, member, value in _members(raw.decode()):
            wanted = left.pop(name, _MISSING)
            if wanted is not _MISSING and (name in same or _says(value.encode(), wanted)):
                parts.append(member.encode())
                continue
            is_same = False
            if wanted is not _MISSING:
                parts.append(dumps({name: wanted})[1:-1])
    except (ValueError, RecursionError):
        return dumps(answer)
    if is_same and not left:
        return raw
    parts += [dumps({name: value})[1:-1] for name, value in left.items()]
    return b"{" + b",".join(parts) + b"}"


def _replaced(raw: bytes, said: dict[str, Any], answer: dict[str, Any]) -> bytes | None:
    """Return strict JSON in which changed members are written anew, or None where that takes a closer look.

    The first text that looks like a member is taken for it. Whether it was the member of the outer object shows when
    the result is read again: it is the answer, or the text was another's.
    """
    if said.keys() != answer.keys():
        return None
    text = raw
    for name, value in answer.items():
        if said[name] != value:
            if not isinstance(value, (str, dict)) or (found := _member(name).search(text)) is None:
                return None
            text = text[: found.start()] + dumps({name: value})[1:-1] + text[found.end() :]
    return text if _strict(text) == answer else None


@lru_cache(maxsize=64)
def _member(name: str) -> re.Pattern[bytes]:
    """Return what a member of that name looks like whose value is a text or an object, with two levels at most."""
    return re.compile(re.escape(dumps(name)) + _COLON + b"(?:" + _TEXT + b"|" + _DEEPER + b")")


def _strict(raw: bytes) -> dict[str, Any] | None:
    """Return the object of strict JSON, or None where the text is no object, or a name comes twice in one object."""
    try:
        said = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _says(text: bytes, value: Any) -> bool:
    """Return whether a strict JSON text is the text of a value."""
    try:
        return bool(orjson.loads(text) == value)
    except ValueError:  # half a surrogate pair, NaN, a number beyond all floats
        return False


def _members(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each member of a JSON object, its text, and that of its value.

    Raises:
        ValueError: the text is no JSON object.
    """
    found = _BEGIN.match(text)
    if found is None:
        raise ValueError("no object")
    while text[found.end() : found.end() + 1] != "}":
        named = _NAME.match(text, place := found.end())
        if named is None:
            raise ValueError(f"no name at {place}")
        _, end = _JSON.raw_decode(text, begin := named.end())
        name = named[1] if "\\" not in named[1] else json.loads(f'"{named[1]}"')
        yield name, text[place:end], text[begin:end]
        found = _COMMA.match(text, end)
        if found is None:
            raise ValueError(f"no end of a member at {end}")


_JSON = json.JSONDecoder()
