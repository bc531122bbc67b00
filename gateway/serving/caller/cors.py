"""Lets pages of the origins that the operator names call from a browser: asked before a call, and said on every answer."""

from __future__ import annotations

from gateway.serving.caller.exchange import Exchange
from gateway.serving.caller.headers import Headers, written

ANY = "*"
KEPT_S = 7_200
"""How long a browser remembers what it was told, which is the most that any of them does."""


class Cors:
    """What is said to pages of other origins. A page sends no cookies here: its key is in a header that it sets itself."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)

    def headers(self, origin: str) -> Headers:
        """Return what stands on an answer to a page of ``origin``, so that it may read all of it."""
        if ANY in self._origins:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
        if origin.lower() not in self._origins:
            return [(b"vary", b"Origin")]
        allowed = (b"access-control-allow-origin", written(origin))
        return [allowed, (b"access-control-expose-headers", b"*"), (b"vary", b"Origin")]

    async def preflight(self, exchange: Exchange) -> bool:
        """Answer a browser that asks whether its page may call; return whether it did."""
        if exchange.method != "OPTIONS" or exchange.header(b"access-control-request-method") is None:
            return False
        wanted = exchange.header(b"access-control-request-headers") or "authorization, content-type"
        lines = [
            (b"access-control-allow-methods", b"GET, POST, PUT, OPTIONS"),
            (b"access-control-allow-headers", written(wanted)),
            (b"access-control-max-age", b"%d" % KEPT_S),
        ]
        await exchange.start(204, lines, b"text/plain")
        await exchange.end()
        return True
