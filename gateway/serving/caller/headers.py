"""The caller's headers that reach the upstream, by an allow-list, and the gateway's own headers in answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from gateway.holds.hold import Hold, Settled
from gateway.holds.refusals import duration
from gateway.serving.upstream.profiles import COUNT_TOKENS, MESSAGES

Headers = list[tuple[bytes, bytes]]

OF_STREAMS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
"""Headers that make proxies pass a stream on without delay: the second is for nginx."""

DROPPED_MOST, NAME_MOST = 32, 64
"""The most names that ``x-tokencap-dropped`` lists, and the most characters of each."""

NOT_IN_A_NAME = re.compile(r"[^\x21-\x2b\x2d-\x7e]")


def dropped_header(names: tuple[str, ...]) -> Headers:
    """Return the header that names the dropped fields and headers, separated by commas; ``...`` ends a cut list."""
    if not names:
        return []
    listed = [NOT_IN_A_NAME.sub("?", name[:NAME_MOST]) for name in names[:DROPPED_MOST]]
    return [(b"x-tokencap-dropped", ", ".join([*listed, *(["..."] if len(names) > DROPPED_MOST else [])]).encode())]


def answer_headers(hold: Hold, dropped: tuple[str, ...] = ()) -> Headers:
    """Return the headers of the answer to an admitted call."""
    facts = hold.facts
    headers = [(b"x-tokencap-cap", b"%d" % hold.grant), (b"x-tokencap-conversation", written(facts.conversation))]
    if dropped:
        headers += dropped_header(dropped)
    headers += _terms_headers(facts.tier, facts.menu_version)
    if hold.period_tokens_max is not None and hold.period_left is not None:
        headers += [
            (b"x-ratelimit-limit-tokens", b"%d" % hold.period_tokens_max),
            (b"x-ratelimit-remaining-tokens", b"%d" % hold.period_left),
            (b"x-ratelimit-reset-tokens", duration((facts.period_end - hold.admitted) // 1000).encode()),
        ]
    return headers


@lru_cache(maxsize=1024)
def _terms_headers(tier: str | None, menu_version: str | None) -> tuple[tuple[bytes, bytes], ...]:
    headers = ((b"x-tokencap-tier", tier), (b"x-tokencap-menu-version", menu_version))
    return tuple((name, written(value)) for name, value in headers if value is not None)


def charge_header(settled: Settled | None) -> Headers:
    """Return the header with the charge, or nothing where the charge is not known in time."""
    return [] if settled is None else [(b"x-tokencap-charge-nanousd", b"%d" % settled.charge_nanousd)]


def length_header(body: bytes) -> tuple[bytes, bytes]:
    """Return the header with the length of a whole answer."""
    return b"content-length", b"%d" % len(body)


def written(text: str) -> bytes:
    """Return a header's value as bytes; a character outside Latin-1 becomes ``?``."""
    return text.encode("latin-1", "replace")


TRACING = ("traceparent", "tracestate")
OPENAI, ANTHROPIC = ("openai-beta",), ("anthropic-beta", "anthropic-version")

NAMED_WHERE_DROPPED = ("openai-organization", "openai-project")
"""Headers that callers set in a vendor's SDK and that never pass: the operator decides which account is billed."""

VALUE = re.compile(r"[\x20-\x7e]{1,2000}")


def allowed(endpoint: str, more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of the headers that pass on a route, including those that the operator lets pass."""
    own = ANTHROPIC if endpoint in (MESSAGES, COUNT_TOKENS) else OPENAI
    return tuple(dict.fromkeys((*TRACING, *own, *more)))


def passed_headers(
    header: Callable[[bytes], str | None], names: Iterable[str]
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return the caller's headers that pass, and the names of those that a caller may expect to pass but do not."""
    passed: dict[str, str] = {}
    dropped = [name for name in NAMED_WHERE_DROPPED if header(name.encode()) is not None]
    for name in names:
        value = header(name.encode())
        if value is not None and VALUE.fullmatch(value):
            passed[name] = value
        elif value:
            dropped.append(name)
    return passed, tuple(dropped)
