"""The interface of a client: it carries a request to the upstream and its answer back, as bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

Sink = Callable[[bytes], bool]
"""Takes a piece of a body; returns whether it wants the next piece at once."""

Sent = Callable[[], None]
"""Called when a request leaves: from then on tokens may be made."""

OF_ALL = {"content-type": "application/json", "accept-encoding": "identity"}
"""Headers of every request."""


def ignore_sent() -> None:
    """Do nothing."""


class Reply(Protocol):
    """An answer whose head is here. Bytes of its body come as they are sent, without the framing of HTTP."""

    status: int

    def header(self, name: str) -> str | None:
        """Return a header by its lower-case name."""

    async def chunk(self, patience_s: float) -> bytes | None:
        """Return the next bytes of the body, or None after the last ones.

        Raises:
            UpstreamUnavailable: the connection broke before the end.
            UpstreamTimeout: nothing came for ``patience_s``.
        """

    async def pour(self, sink: Sink, patience_s: float, idle_s: float) -> bool:
        """Hand each piece to ``sink`` in the turn in which it comes; return whether ``sink`` got all of them.

        Where ``sink`` wants no more for now, return False; what comes meanwhile is kept, up to a bound.

        Raises:
            UpstreamUnavailable: the connection broke before the end.
            UpstreamTimeout: nothing came for ``patience_s``, or after the first piece for ``idle_s``.
        """

    async def aclose(self) -> None:
        """Stop reading; a connection with more to come is closed."""


class Transport(Protocol):
    """A client that keeps connections."""

    async def post(
        self,
        path: str,
        body: bytes,
        request_id: str,
        more: Mapping[str, str],
        patience_s: float,
        sent: Sent = ignore_sent,
    ) -> Reply:
        """Send a JSON body to ``path`` below the endpoint's URL; return the reply once its head is here.

        ``more`` are the request's own headers. ``sent`` is called each time before a byte of the request leaves.

        The request is sent once. It is sent again, once and on a new connection, only where its first connection was
        kept from an earlier call and given up before the other side had read all of the request: before a byte was
        written, or, where the client can tell, by a reset or with unacknowledged bytes, and without a byte of an
        answer.

        Raises:
            UpstreamUnavailable: the endpoint does not answer, or not in HTTP.
            UpstreamTimeout: no head came within ``patience_s``.
        """

    async def aclose(self) -> None:
        """Close every connection."""
