"""The interface of an HTTP client: it carries requests to the upstream and the answers back, as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

Sink = Callable[[bytes], bool]
"""Takes a piece of a body; returns whether it wants the next piece at once."""

Sent = Callable[[], None]
"""Called when a request is sent: from then on the upstream may generate tokens."""

OF_ALL = {"content-type": "application/json", "accept-encoding": "identity"}
"""Headers of every request."""


def ignore_sent() -> None:
    """Do nothing."""


class Reply(Protocol):
    """An answer whose head has come. The bytes of its body come as they are sent, without the framing of HTTP."""

    status: int

    def header(self, name: str) -> str | None:
        """Return a header's value by its lower-case name, or None."""

    async def chunk(self, patience_s: float) -> bytes | None:
        """Return the next bytes of the body, or None after the last ones.

        Raises:
            UpstreamUnavailable: the connection broke before the end.
            UpstreamTimeout: nothing came for ``patience_s``.
        """

    async def pour(self, sink: Sink, patience_s: float, idle_s: float) -> bool:
        """Hand each piece to ``sink`` in the turn in which it comes; return whether ``sink`` got all of them.

        Where ``sink`` wants no more for now, return False; the bytes that come meanwhile are kept, up to a bound.

        Raises:
            UpstreamUnavailable: the connection broke before the end.
            UpstreamTimeout: nothing came for ``patience_s``, or for ``idle_s`` after the first piece.
        """

    async def aclose(self) -> None:
        """Stop reading; a connection with more to come is closed."""


class Transport(Protocol):
    """An HTTP client that keeps connections open between calls."""

    async def post(
        self,
        path: str,
        body: bytes,
        request_id: str,
        more: Mapping[str, str],
        patience_s: float,
        sent: Sent = ignore_sent,
    ) -> Reply:
        """Send a JSON body to ``path`` below the endpoint's URL; return the reply once its head has come.

        ``more`` are the request's own headers. ``sent`` is called each time before the request is sent.

        The request is sent once. It is sent again, once and on a new connection, only if its first connection was kept
        from an earlier call, no byte of an answer came, and the other side gave the connection up before it had read
        all of the request. That is known if no byte was written or, where the client can tell, by a reset or by
        unacknowledged bytes.

        Raises:
            UpstreamUnavailable: the endpoint does not answer, or not in HTTP.
            UpstreamTimeout: no head came within ``patience_s``.
        """

    async def aclose(self) -> None:
        """Close every connection."""
