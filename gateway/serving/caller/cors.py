"""Lets pages of the origins that the operator allows call from a browser: preflights, and the headers of answers."""

from __future__ import annotations

from gateway.serving.caller.exchange import Exchange
from gateway.serving.caller.headers import Headers, written

ANY = "*"
KEPT_S = 7_200
"""How long a browser remembers a preflight: the longest time that Chromium accepts."""


class Cors:
    """Headers for pages of other origins. They need no cookies: a page sends its key in a header that it sets."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)

    def headers(self, origin: str) -> Headers:
        """Return the headers that let a page of ``origin`` read an answer, if the operator allows that origin."""
        if ANY in self._origins:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
        if origin.lower() not in self._origins:
            return [(b"vary", b"Origin")]
        allowed = (b"access-control-allow-origin", written(origin))
        return [allowed, (b"access-control-expose-headers", b"*"), (b"vary", b"Origin")]

    async def preflight(self, exchange: Exchange) -> bool:
        """Answer a preflight; return whether the request was one."""
        if exchange.method != "OPTIONS" or exchange.header(b"access-control-request-method") is None:
            return False
        requested = exchange.header(b"access-control-request-headers") or "authorization, content-type"
        lines = [
            (b"access-control-allow-methods", b"GET, POST, PUT, OPTIONS"),
            (b"access-control-allow-headers", written(requested)),
            (b"access-control-max-age", b"%d" % KEPT_S),
        ]
        await exchange.start(204, lines, b"text/plain")
        await exchange.end()
        return True
