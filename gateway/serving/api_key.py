"""API keys as callers send them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256

from gateway.errors import InvalidKey
from gateway.serving.exchange import Exchange

KEY = re.compile(r"tc-([0-9a-f]{2})-[A-Za-z0-9_-]{20,128}")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key: the bucket it names, the digest that stands for it everywhere else, and its text, never printed."""

    bucket: str
    digest: str
    text: str = field(repr=False)

    @property
    def secret(self) -> bytes:
        """What only this key's holder, and whoever serves it right now, can make digests with."""
        return sha256(b"tokencap threads " + self.text.encode()).digest()


def key_of(exchange: Exchange) -> Key:
    """Return the key a request carries, as OpenAI's clients send it or in ``x-api-key``, as Anthropic's do.

    Raises:
        InvalidKey: there is none, or nothing we ever gave out looks like it.
    """
    scheme, _, given = (exchange.header("authorization") or "").partition(" ")
    bearer = given.strip() if scheme.lower() == "bearer" else ""
    shown = KEY.fullmatch(bearer) or KEY.fullmatch((exchange.header("x-api-key") or "").strip())
    if shown is None:
        raise InvalidKey
    return Key(shown.group(1), sha256(shown.group(0).encode()).hexdigest(), shown.group(0))
