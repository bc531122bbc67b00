"""How many tokens a call is counted and billed, from the upstream's figures and the observed text; decided purely."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from gateway.holds.hold import Outcome


@dataclass(slots=True)
class Usage:
    """What an upstream reports a call used. A number that is absent or invalid is None or 0."""

    output_tokens: int | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    is_disputed: bool = False
    """Whether its figures contradict one another."""


UNSAID = Usage()

COUNT_MOST = 2**53 - 1
"""The most that a count can be: every reader of a record keeps it exactly."""


READ_MOST = 100_000_000
"""The most tokens of a prompt: a figure beyond it counts as absent."""


def count(value: Any) -> int | None:
    """Return a count as an upstream should write it, or None for anything else."""
    return value if type(value) is int and 0 <= value <= COUNT_MOST else None


def said_output(said: int | None, reasoning: int, given: int | None, total: int | None) -> tuple[int | None, bool]:
    """Return the output of a usage, and whether its figures contradict one another.

    Output is what was shown and what was thought. Some upstreams report only what was shown, and the rest beside it or
    only in the total; the largest figure is taken.
    """
    if said is None:
        return None, False
    beside = said + reasoning if reasoning > said else said
    most = max(beside, 0 if total is None or given is None else total - given)
    return most, most != said


def sum_of(said: Usage, each: Collection[Usage]) -> Usage:
    """Return the usage of all choices, of which one has just ``said`` its own."""
    output = sum(one.output_tokens or 0 for one in each)
    return replace(said, output_tokens=output, reasoning_tokens=sum(one.reasoning_tokens for one in each))


@dataclass(slots=True)
class Observed:
    """What was observed of an answer, and what the upstream reported of it."""

    usage: Usage
    tokens: int
    """The gateway's own count or estimate, over all choices, at most what was granted."""
    is_final: bool
    """Whether the usage covers all of the text: it came after the text, or beside its end."""
    is_whole: bool
    """Whether the upstream brought the answer to its end."""
    is_estimate: bool = False
    """Whether the tokens are estimated from the text's length, because its pieces were not a token each."""
    recounted: int | None = None
    """A tokenizer's count of the text that went by, where there is one."""
    least: int = 0
    """The least tokens that the text has, by any count."""
    surely: int | None = None
    """The least tokens that went by, where ``tokens`` is an estimate of a text that came in pieces."""
    is_partial: bool = False
    """Whether the usage lacks choices that have not reported yet: then it is the least that was made."""

    def is_belied(self) -> bool:
        """Return whether the figure that the upstream said of all of the text is too small for it."""
        said = self.usage.output_tokens
        return said is not None and self.is_final and (said < self.least or (said == 0 and self.tokens > 0))


@dataclass(slots=True)
class Count:
    """Output tokens as counted, as billed, and by whom."""

    output_tokens: int
    billed_output_tokens: int
    source: str


def count_output(observed: Observed, granted: int) -> Count:
    """Return what a call's output comes to.

    The upstream's own figure for all of the text is taken, unless it is too small for what we saw. A figure that more
    text came after is taken unless we are sure of more. Else it is what a tokenizer says of the text, and where there is
    none what went by. What is billed is never above what was granted, and never less than what was relayed.
    """
    reported, seen = observed.usage.output_tokens, observed.tokens
    surely = seen if observed.surely is None else observed.surely
    if reported is not None and observed.is_final and not observed.is_belied():
        output, source = reported, "upstream" if observed.is_whole else "continuous"
    elif reported and reported >= surely and not observed.is_partial:
        output, source = reported, "continuous"
    elif observed.recounted is not None:
        output, source = max(observed.recounted, reported or 0 if observed.is_partial else 0), "tokenizer"
    else:
        output, source = seen, "estimate" if observed.is_estimate else "counted"
    return Count(output, min(output, granted), source)


def said_input(said: int | None) -> int | None:
    """Return the input as the upstream said it; zero is no figure, since it was given something to read, nor is what no model
    can have read."""
    return said if said and said <= READ_MOST else None


@dataclass(slots=True)
class Input:
    """Input tokens as billed, and by whom they were counted; by nobody where none can be billed."""

    tokens: int
    source: str | None


def count_input(said: int | None, recounted: int | None, *, estimate: int, bound: int) -> Input:
    """Return what a call's input comes to: as the upstream said, else as a tokenizer counted it, else the estimate.

    What the upstream says stands, whatever was held. What is counted here is never above that.
    """
    if bound == 0:
        return Input(0, None)
    if said is not None:
        return Input(said, "upstream")
    for tokens, source in ((recounted, "tokenizer"), (estimate, "estimate")):
        if tokens is not None:
            return Input(min(tokens, bound), source)
    raise AssertionError("there always is an estimate")


def outcome(
    observed: Observed,
    given: Input,
    *,
    granted: int,
    finish: str,
    ttft_ms: int | None,
    duration_ms: int,
    threads: tuple[str, ...],
) -> Outcome:
    """Return what an answered call came to."""
    usage, counted = observed.usage, count_output(observed, granted)
    return Outcome(
        was_answered=True,
        finish=finish,
        output_tokens=counted.output_tokens,
        billed_output_tokens=counted.billed_output_tokens,
        input_tokens=given.tokens,
        input_source=given.source,
        cached_tokens=min(usage.cached_tokens, given.tokens),
        reasoning_tokens=min(usage.reasoning_tokens, counted.output_tokens),
        usage_source=counted.source,
        usage_dispute="text" if observed.is_belied() else "itself" if usage.is_disputed else None,
        ttft_ms=ttft_ms,
        duration_ms=duration_ms,
        threads=threads,
    )


_WORST_FIRST = ("length", "content_filter", "tool_calls", "function_call", "stop")
_FINISHES = {"content_filter": "filtered", "tool_calls": "tool_calls", "function_call": "tool_calls"}


def finish_of(reasons: list[str], *, uses_whole_grant: bool, bound_by: str) -> str:
    """Return how a whole call ended, from how its choices did: one that was cut makes it a cut call.

    An upstream that gives no reason, or one that nobody knows, has brought its answer to its end.
    """
    worst = reasons[0] if len(reasons) == 1 else next((one for one in _WORST_FIRST if one in reasons), "stop")
    if worst == "length":
        return bound_by if uses_whole_grant else "context"
    return _FINISHES.get(worst, "complete")
