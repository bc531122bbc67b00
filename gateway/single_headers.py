"""Which headers of a request may come once only.

Where one comes twice, a proxy before the gateway may obey the first and the gateway the second.
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
"""Headers that a gateway decides by, by their lower-case names."""


def repeated_header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the first header of ``ONCE`` that comes twice, as it is usually written, or None.

    Args:
        headers: names in lower case, and values, as ASGI has them.
    """
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in ONCE:
            if name in seen:
                return ONCE[name]
            seen.add(name)
    return None
