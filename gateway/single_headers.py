"""Which headers of a request may come once only, so that no proxy before us takes one of two and we the other."""

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
"""Headers that say something to us, by their lower-case names."""


def repeated(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the first header that says something to us and comes twice, as it is usually written, or None."""
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in ONCE:
            if name in seen:
                return ONCE[name]
            seen.add(name)
    return None
