"""The server's limits: the sizes, times and numbers that a connection may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.runtime.sockets import files_allowed

if TYPE_CHECKING:  # a program that only serves, such as the simulated model, needs no settings
    from gateway.settings import Settings

REQUEST_LINE_MAX = 8 * 2**10
FIELDS_MAX = 100
"""The most headers of a request."""

FIELD_NAME_MAX = 256
CHUNK_LINE_MAX = 256
"""The most bytes of a chunk's length with its extension."""

CHUNKS_FREE, BYTES_A_CHUNK = 16_384, 32
"""A body may have CHUNKS_FREE chunks, and another for each BYTES_A_CHUNK bytes: a chunk costs more than its bytes."""

TRAILERS_MAX, TRAILER_BYTES_MAX = 32, 4 * 2**10

READ_MAX = 64 * 2**10
"""The most bytes that are read at once, and the most that wait for an answer to end or for an app to read them."""

UNREAD_MAX = 64 * 2**10
"""The most bytes of a body that are dropped after an answer that did not wait for them; more end the connection."""

BODY_GRACE_S = 10.0
"""How long a body may pause."""

UNREAD_CHUNKS_MAX = 4 * 2**10
"""As ``UNREAD_MAX``, where the body is chunked: finding its end costs much more than counting bytes."""

LINGER_S, LINGER_BYTES_MAX = 2.0, 2**20
"""How long, and for how many bytes, the server reads from a refused caller, so that the refusal is not lost."""

LINGERING_MAX = 256
"""The most connections refused for lack of room from which the server reads in this way at once."""

CONNECTIONS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits that an operator sets; ``gateway/serving/README.md`` has all of them in one table."""

    head_max: int = 32 * 2**10
    head_deadline_s: float = 10.0
    body_rate_min: float = 1_024
    keep_alive_s: float = 75.0
    """Longer than the idle time of usual load balancers, so that these close a connection first and none is reset."""

    write_deadline_s: float = 60.0
    connections_max: int = CONNECTIONS_MAX
    connections_per_address_max: int = CONNECTIONS_MAX // 2
    parting_s: float = 1.0
    """How long a kept connection is left open once the server stops: a request may be in flight."""


def limits_of(settings: Settings) -> HttpLimits:
    """Return the operator's settings, and defaults for this machine where nothing is set."""
    connections_max = settings.connections_max or min(CONNECTIONS_MAX, files_allowed() // 3)
    return HttpLimits(
        head_max=settings.head_max,
        head_deadline_s=settings.head_deadline_s,
        body_rate_min=settings.body_rate_min,
        keep_alive_s=settings.keep_alive_s,
        write_deadline_s=settings.write_deadline_s,
        connections_max=connections_max,
        connections_per_address_max=min(
            connections_max, settings.connections_per_address_max or max(1, connections_max // 2)
        ),
    )
