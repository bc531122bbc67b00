"""Which of a caller's request headers reach the upstream: an allow-list, since the others are between caller and gateway."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from gateway.serving.upstream.profiles import COUNT_TOKENS, MESSAGES

TRACING = ("traceparent", "tracestate")
OPENAI, ANTHROPIC = ("openai-beta",), ("anthropic-beta", "anthropic-version")

NAMED_WHERE_DROPPED = ("openai-organization", "openai-project")
"""Headers that a vendor's SDK sets on purpose and that never pass: whose account is billed is the house's to say."""

VALUE = re.compile(r"[\x20-\x7e]{1,2000}")


def allowed(endpoint: str, more: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of headers that pass on a route, with the operator's."""
    own = ANTHROPIC if endpoint in (MESSAGES, COUNT_TOKENS) else OPENAI
    return tuple(dict.fromkeys((*TRACING, *own, *more)))


def passed_headers(
    header: Callable[[bytes], str | None], names: Iterable[str]
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return the caller's headers that pass, and the names of those that were to and do not."""
    passed: dict[str, str] = {}
    dropped = [name for name in NAMED_WHERE_DROPPED if header(name.encode()) is not None]
    for name in names:
        value = header(name.encode())
        if value is not None and VALUE.fullmatch(value):
            passed[name] = value
        elif value:
            dropped.append(name)
    return passed, tuple(dropped)
