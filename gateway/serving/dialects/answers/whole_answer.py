"""Whole answers: requested where callers do not stream, and relayed in the upstream's bytes."""

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
    """Return whether the upstream is asked for a whole answer, not a stream.

    It is if the caller does not stream, the profile does not always stream, and a whole answer's usage counts all
    choices.
    """
    return not (profile.always_streams or body.get("stream") or (profile.counts_choices_apart and choices > 1))


def streamed(body: Body, request: Parameters) -> Body:
    """Return the field that requests a stream; for a whole answer, ``false`` where the body has it, else nothing."""
    if not request.comes_whole:
        return {"stream": True}
    return {"stream": False} if body.get("stream") is False else {}


def with_original_bytes(raw: bytes, answer: Any) -> bytes:
    """Return an answer as JSON, in which unchanged members keep their bytes from ``raw``.

    Members that the gateway has changed (the model's name, the usage, a text that was cut) are written anew, as are
    members that not every JSON parser accepts.

    Args:
        raw: the answer as the upstream sent it.
        answer: the same answer as the caller receives it.
    """
    if not isinstance(answer, dict):
        return dumps(answer)
    received = _strict(raw)
    if received == answer:
        return raw
    if received is not None and (replaced := _replaced(raw, received, answer)) is not None:
        return replaced
    unchanged = (
        {name for name, value in received.items() if answer.get(name, _MISSING) == value}
        if received is not None
        else ()
    )
    remaining, parts, is_same = dict(answer), [], True
    try:
        for name, member, value in _members(raw.decode()):
            new_value = remaining.pop(name, _MISSING)
            if new_value is not _MISSING and (name in unchanged or _encodes(value.encode(), new_value)):
                parts.append(member.encode())
                continue
            is_same = False
            if new_value is not _MISSING:
                parts.append(dumps({name: new_value})[1:-1])
    except (ValueError, RecursionError):
        return dumps(answer)
    if is_same and not remaining:
        return raw
    parts += [dumps({name: value})[1:-1] for name, value in remaining.items()]
    return b"{" + b",".join(parts) + b"}"


def _replaced(raw: bytes, received: dict[str, Any], answer: dict[str, Any]) -> bytes | None:
    """Return strict JSON in which changed members are written anew, or None where each member has to be read.

    The first text that looks like a changed member is replaced. Then the result is parsed: it equals the answer only if
    the replaced text was a member of the outer object.
    """
    if received.keys() != answer.keys():
        return None
    text = raw
    for name, value in answer.items():
        if received[name] != value:
            if not isinstance(value, (str, dict)) or (match := _member(name).search(text)) is None:
                return None
            text = text[: match.start()] + dumps({name: value})[1:-1] + text[match.end() :]
    return text if _strict(text) == answer else None


@lru_cache(maxsize=64)
def _member(name: str) -> re.Pattern[bytes]:
    """Return the pattern of a member with this name whose value is a text, or an object of at most two levels."""
    return re.compile(re.escape(dumps(name)) + _COLON + b"(?:" + _TEXT + b"|" + _DEEPER + b")")


def _strict(raw: bytes) -> dict[str, Any] | None:
    """Return the object in strict JSON, or None where the JSON is no object or has a name twice in one object."""
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _encodes(text: bytes, value: Any) -> bool:
    """Return whether a text is strict JSON of a value."""
    try:
        return bool(orjson.loads(text) == value)
    except ValueError:  # half a surrogate pair, NaN, a number too large for a float
        return False


def _members(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each member of a JSON object, the text of the member, and the text of its value.

    Raises:
        ValueError: the text is not a JSON object.
    """
    match = _BEGIN.match(text)
    if match is None:
        raise ValueError("no object")
    while text[match.end() : match.end() + 1] != "}":
        name_match = _NAME.match(text, place := match.end())
        if name_match is None:
            raise ValueError(f"no name at {place}")
        _, end = _JSON.raw_decode(text, begin := name_match.end())
        name = name_match[1] if "\\" not in name_match[1] else json.loads(f'"{name_match[1]}"')
        yield name, text[place:end], text[begin:end]
        match = _COMMA.match(text, end)
        if match is None:
            raise ValueError(f"no end of a member at {end}")


_JSON = json.JSONDecoder()
