"""Response headers of our own: what was granted, under which tier and menu, and what is left."""

from __future__ import annotations

from gateway.holds.hold import Hold, Settled
from gateway.holds.refusals import duration

Headers = list[tuple[str, str]]


def answer_headers(hold: Hold) -> Headers:
    """Return the headers that stand on every answer."""
    facts = hold.facts
    headers = [("x-tokencap-cap", str(hold.grant)), ("x-tokencap-conversation", facts.conversation)]
    if facts.tier is not None:
        headers.append(("x-tokencap-tier", facts.tier))
    if facts.menu_version is not None:
        headers.append(("x-tokencap-menu-version", facts.menu_version))
    if hold.period_tokens_max is not None:
        headers += [
            ("x-ratelimit-limit-tokens", str(hold.period_tokens_max)),
            ("x-ratelimit-remaining-tokens", str(hold.period_left)),
            ("x-ratelimit-reset-tokens", duration((facts.period_end - hold.admitted) // 1000)),
        ]
    return headers


def charge_header(settled: Settled | None) -> Headers:
    """Return the charge, where it is known in time."""
    return [] if settled is None else [("x-tokencap-charge-nanousd", str(settled.charge_nanousd))]
