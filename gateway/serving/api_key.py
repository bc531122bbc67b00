"""API keys as callers send them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256

from gateway.errors import InvalidKey
from gateway.serving.exchange import Exchange

KEY = re.compile(r"tc-([0-9a-f]{2})-[A-Za-z0-9_-]{20,128}")
ELSEWHERE = re.compile(r"(?!tc-)[!-~]{16,256}")
"""A key that another gateway gave out; its digest may have been imported."""

BucketOfKey = Callable[[str], Awaitable[str]]
"""Finds the bucket of a key that does not name it, by the key's digest, or raises InvalidKey."""


@dataclass(slots=True)
class Key:
    """An API key: the bucket it names, the digest that stands for it everywhere else, and its text, never printed."""

    bucket: str
    digest: str
    text: str = field(repr=False)

    @property
    def secret(self) -> bytes:
        """What only this key's holder, and whoever serves it right now, can make digests with."""
        return sha256(b"tokencap threads " + self.text.encode()).digest()


async def key_of(exchange: Exchange, bucket_of_key: BucketOfKey) -> Key:
    """Return the key a request carries, as OpenAI's clients send it or in ``x-api-key``, as Anthropic's do.

    Raises:
        InvalidKey: there is none, or nothing that is known here looks like it.
    """
    scheme, _, given = (exchange.header(b"authorization") or "").partition(" ")
    bearer = given.strip() if scheme.lower() == "bearer" else ""
    if own := KEY.fullmatch(bearer):
        return Key(own[1], _digest(bearer), bearer)
    api_key = (exchange.header(b"x-api-key") or "").strip()
    if own := KEY.fullmatch(api_key):
        return Key(own[1], _digest(api_key), api_key)
    made_elsewhere = next((text for text in (bearer, api_key) if ELSEWHERE.fullmatch(text)), None)
    if made_elsewhere is None:
        raise InvalidKey
    digest = _digest(made_elsewhere)
    return Key(await bucket_of_key(digest), digest, made_elsewhere)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
