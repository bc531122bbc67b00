"""The headers that a request may have only once.

If such a header comes twice, a proxy in front of the gateway may obey the first and the gateway the second.
"""

from __future__ import annotations

from collections.abc import Iterable

ONCE = {
    name.lower().encode(): name
    for name in (
        "Authorization",
        "Content-Encoding",
        "Content-Length",
        "Content-Type",
        "Expect",
        "Host",
        "Idempotency-Key",
        "Transfer-Encoding",
        "X-Api-Key",
        "X-Conversation-Id",
        "X-Request-Id",
        "X-Tokencap-Tier",
    )
}
"""The headers that influence the gateway's decisions: from lower-case names to the usual spelling."""


def repeated_header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the first header of ``ONCE`` that comes twice, in its usual spelling, or None.

    Args:
        headers: pairs of a lower-case name and a value, as in ASGI.
    """
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in ONCE:
            if name in seen:
                return ONCE[name]
            seen.add(name)
    return None
