"""Response headers of our own: what was granted, under which tier and menu, and what is left."""

from __future__ import annotations

import re

from gateway.holds.hold import Hold, Settled
from gateway.holds.refusals import duration

Headers = list[tuple[bytes, bytes]]

OF_STREAMS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""What has proxies pass on a stream as it comes: the second is nginx's."""

DROPPED_MOST, NAME_MOST = 32, 64
"""Names that ``x-tokencap-dropped`` lists, and characters of each."""

NOT_IN_A_NAME = re.compile(r"[^\x21-\x2b\x2d-\x7e]")


def dropped_header(names: tuple[str, ...]) -> Headers:
    """Return the header that names what was left out of a body: with commas between, ``…`` written as three dots."""
    if not names:
        return []
    listed = [NOT_IN_A_NAME.sub("?", name[:NAME_MOST]) for name in names[:DROPPED_MOST]]
    return [(b"x-tokencap-dropped", ", ".join([*listed, *(["..."] if len(names) > DROPPED_MOST else [])]).encode())]


def answer_headers(hold: Hold, dropped: tuple[str, ...] = ()) -> Headers:
    """Return the headers that stand on every answer."""
    facts = hold.facts
    headers = [(b"x-tokencap-cap", b"%d" % hold.grant), (b"x-tokencap-conversation", written(facts.conversation))]
    headers += dropped_header(dropped)
    if facts.tier is not None:
        headers.append((b"x-tokencap-tier", written(facts.tier)))
    if facts.menu_version is not None:
        headers.append((b"x-tokencap-menu-version", written(facts.menu_version)))
    if hold.period_tokens_max is not None and hold.period_left is not None:
        headers += [
            (b"x-ratelimit-limit-tokens", b"%d" % hold.period_tokens_max),
            (b"x-ratelimit-remaining-tokens", b"%d" % hold.period_left),
            (b"x-ratelimit-reset-tokens", duration((facts.period_end - hold.admitted) // 1000).encode()),
        ]
    return headers


def charge_header(settled: Settled | None) -> Headers:
    """Return the charge, where it is known in time."""
    return [] if settled is None else [(b"x-tokencap-charge-nanousd", b"%d" % settled.charge_nanousd)]


def length_header(body: bytes) -> tuple[bytes, bytes]:
    """Return the header of a whole answer."""
    return b"content-length", b"%d" % len(body)


def written(text: str) -> bytes:
    """Return a header's value as it is sent."""
    return text.encode("latin-1", "replace")
