"""How many tokens a call is counted and billed, from what the upstream said and what we saw go by; decided purely."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from gateway.holds.hold import Outcome


@dataclass(slots=True)
class Usage:
    """What an upstream says a call used. A number that it does not say, or says wrongly, is None or 0."""

    output_tokens: int | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    is_disputed: bool = False
    """Whether its figures contradict one another."""


UNSAID = Usage()

COUNT_MOST = 2**53 - 1
"""No count is above what every reader of a record keeps exactly."""


READ_MOST = 100_000_000
"""Tokens of a prompt, at most: beyond it a figure is as good as unsaid."""


def count(value: Any) -> int | None:
    """Return a count as an upstream should write it, or None for anything else."""
    return value if type(value) is int and 0 <= value <= COUNT_MOST else None


def said_output(said: int | None, reasoning: int, given: int | None, total: int | None) -> tuple[int | None, bool]:
    """Return the output that a usage comes to, and whether its figures contradict one another.

    Output is what was shown and what was thought. Some say only what was shown, and the rest beside it or in the total
    alone; whatever says the most is taken.
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
class Sight:
    """What went by of an answer, and what the upstream said of it."""

    usage: Usage
    tokens: int
    """As we counted or guessed them, over all choices, at most what was granted."""
    is_final: bool
    """Whether the usage was said of all of the text: after it, or beside its end."""
    is_whole: bool
    """Whether the upstream brought the answer to its end."""
    is_estimate: bool = False
    """Whether the tokens are guessed from the length of the text, because it did not come in pieces of a token each."""
    recounted: int | None = None
    """As a tokenizer counted the text that went by, where one did."""
    least: int = 0
    """Tokens that the text has at least, whoever counts them."""
    surely: int | None = None
    """Tokens that went by at the least, where ``tokens`` is a guess at a text that came in pieces."""
    is_partial: bool = False
    """Whether the usage leaves out choices that have said none yet: then it is the least that was made."""

    @property
    def is_belied(self) -> bool:
        """Whether the figure that the upstream said of all of the text is too small for it."""
        said = self.usage.output_tokens
        return said is not None and self.is_final and (said < self.least or (said == 0 and self.tokens > 0))


@dataclass(slots=True)
class Count:
    """Output tokens as counted, as billed, and by whom."""

    output_tokens: int
    billed_output_tokens: int
    source: str


def count_output(sight: Sight, granted: int) -> Count:
    """Return what a call's output comes to.

    The upstream's own figure for all of the text is taken, unless it is too small for what we saw. A figure that more
    text came after is taken unless we are sure of more. Else it is what a tokenizer says of the text, and where there is
    none what went by. What is billed is never above what was granted, and never less than what was relayed.
    """
    reported, seen = sight.usage.output_tokens, sight.tokens
    surely = seen if sight.surely is None else sight.surely
    if reported is not None and sight.is_final and not sight.is_belied:
        output, source = reported, "upstream" if sight.is_whole else "continuous"
    elif reported and reported >= surely and not sight.is_partial:
        output, source = reported, "continuous"
    elif sight.recounted is not None:
        output, source = max(sight.recounted, reported or 0 if sight.is_partial else 0), "tokenizer"
    else:
        output, source = seen, "estimate" if sight.is_estimate else "counted"
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
    sight: Sight,
    given: Input,
    *,
    granted: int,
    finish: str,
    ttft_ms: int | None,
    duration_ms: int,
    threads: tuple[str, ...],
) -> Outcome:
    """Return what an answered call came to."""
    usage, counted = sight.usage, count_output(sight, granted)
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
        usage_dispute="text" if sight.is_belied else "itself" if usage.is_disputed else None,
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
    worst = next((reason for reason in _WORST_FIRST if reason in reasons), "stop")
    if worst == "length":
        return bound_by if uses_whole_grant else "context"
    return _FINISHES.get(worst, "complete")
