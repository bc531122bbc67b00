"""Identifies a body's end user by ``metadata.user_id``, and its conversation by the user's first and last texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.serving.caller.json_body import Body, end_user
from gateway.serving.json_codec import loads

JOINED = re.compile(r"user_([0-9A-Za-z]*)_account_([0-9A-Za-z-]*)_session_([0-9A-Za-z-]{1,128})")


class Identity(NamedTuple):
    """The end user as records store it, and the session, where the body names a session."""

    end_user: str | None
    session: str | None = None


def identity(body: Body) -> Identity:
    """Return the end user and the session that a body names.

    Claude Code's ids, joined or as JSON, name a device, an account and a session: device and account are the end user.

    Raises:
        BadRequest: ``metadata.user_id`` is not a string.
    """
    user = end_user(body, "user_id", within="metadata")
    if user is None:
        return Identity(None)
    user_id: str = body["metadata"]["user_id"]
    parts = _parts(user_id) if user_id[0] in "u{" else None
    if parts is None:
        return Identity(user)
    device, account, session = parts
    joined = f"user_{device}_account_{account}"
    return Identity(end_user({"user": joined}, "user"), session)


def _parts(user_id: str) -> tuple[str, str, str | None] | None:
    if match := JOINED.fullmatch(user_id):
        return match[1], match[2], match[3]
    if not user_id.startswith("{"):
        return None
    try:
        fields = loads(user_id.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    device, account, session = (fields.get(name) or "" for name in ("device_id", "account_uuid", "session_id"))
    if not (isinstance(device, str) and isinstance(account, str) and isinstance(session, str)):
        return None
    if not device and not account:
        return None
    return device, account, session if re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", session) else None


SAID_CHARACTERS = 1000
"""The number of characters of a text that are compared, besides its length."""


def history_of(messages: list[dict[str, Any]]) -> str:
    """Return the beginnings of the user's first and last texts, each with the text's length."""
    return f"{_first(messages)}\n{_first(reversed(messages))}"


def _first(messages: Iterable[dict[str, Any]]) -> str:
    for message in messages:
        if message.get("role") == "user" and (text := _text(message.get("content"))):
            return f"{len(text)} {text[:SAID_CHARACTERS]}"
    return ""


def _text(content: Any) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
