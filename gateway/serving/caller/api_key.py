"""API keys as callers send them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256

from gateway.errors import BadRequest, InvalidKey
from gateway.serving.caller.exchange import Exchange

KEY = re.compile(r"tc-([0-9a-f]{2})-[A-Za-z0-9_-]{20,128}")
ELSEWHERE = re.compile(r"(?!tc-)[!-~]{16,256}")
"""A key that another gateway issued; its digest may have been imported."""

CARRIERS = ("Authorization", "X-Api-Key")
"""Headers that may carry a key."""

BucketOfKey = Callable[[str], Awaitable[str]]
"""Finds the bucket of a key that does not name it, by the key's digest, or raises InvalidKey."""


@dataclass(slots=True)
class Key:
    """An API key: its bucket, the digest that replaces the key everywhere else, and its text, which is never printed."""

    bucket: str
    digest: str
    text: str = field(repr=False)

    @property
    def secret(self) -> bytes:
        """The secret for digests that only the key's holder and the worker that serves the call can compute."""
        return sha256(b"tokencap threads " + self.text.encode()).digest()


async def key_of(exchange: Exchange, bucket_of_key: BucketOfKey) -> Key:
    """Return a request's key, from ``Authorization`` as in OpenAI's clients or ``x-api-key`` as in Anthropic's.

    Where both headers have a key, a key that this gateway issued is preferred. Two different keys that this gateway
    issued, or two that it did not, are refused.

    Raises:
        InvalidKey: the request has nothing that looks like a key, or a key of another gateway that is unknown.
        BadRequest: the request has two keys, or a header that may carry a key comes twice.
    """
    if exchange.repeated in CARRIERS:
        raise BadRequest(f"{exchange.repeated} comes twice.", param=exchange.repeated)
    scheme, _, credentials = (exchange.header(b"authorization") or "").partition(" ")
    candidates = {credentials.strip()} if scheme.lower() == "bearer" else set()
    if (x_api_key := exchange.header(b"x-api-key")) is not None:
        candidates.add(x_api_key.strip())
    for form in (KEY, ELSEWHERE):
        keys = [text for text in candidates if form.fullmatch(text)]
        if len(keys) > 1:
            raise BadRequest("Authorization and X-Api-Key carry different keys.", param="X-Api-Key")
        for text in keys:
            digest = _digest(text)
            return Key(text[3:5] if form is KEY else await bucket_of_key(digest), digest, text)
    raise InvalidKey


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
