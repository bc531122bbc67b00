"""Whom a ``metadata.user_id`` names: Claude Code writes its device, account and session into one."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.serving.caller.json_body import Body, end_user
from gateway.serving.json_codec import loads

JOINED = re.compile(r"user_([0-9A-Za-z]*)_account_([0-9A-Za-z-]*)_session_([0-9A-Za-z-]{1,128})")


class Identity(NamedTuple):
    """The end user, as records keep it, and the session where one is named."""

    end_user: str | None
    session: str | None = None


def identity(body: Body) -> Identity:
    """Return whom a body is for: of Claude Code's ids, written joined or as JSON, the device and the account.

    Raises:
        BadRequest: ``metadata.user_id`` is not a string.
    """
    whole = end_user(body, "user_id", within="metadata")
    if whole is None:
        return Identity(None)
    given: str = body["metadata"]["user_id"]
    parts = _parts(given) if given[0] in "u{" else None
    if parts is None:
        return Identity(whole)
    device, account, session = parts
    both = f"user_{device}_account_{account}"
    return Identity(end_user({"user": both}, "user"), session)


def _parts(given: str) -> tuple[str, str, str | None] | None:
    if found := JOINED.fullmatch(given):
        return found[1], found[2], found[3]
    if not given.startswith("{"):
        return None
    try:
        named = loads(given.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    if not isinstance(named, dict):
        return None
    device, account, session = (named.get(name) or "" for name in ("device_id", "account_uuid", "session_id"))
    if not (isinstance(device, str) and isinstance(account, str) and isinstance(session, str)):
        return None
    if not device and not account:
        return None
    return device, account, session if re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", session) else None
