"""Decides, without I/O, how many tokens are counted and billed, from the upstream's figures and the observed text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from gateway.holds.hold import Outcome


@dataclass(slots=True)
class Usage:
    """The usage that an upstream reports for a call. A figure that is absent or invalid is None or 0."""

    output_tokens: int | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    is_disputed: bool = False
    """Whether the figures contradict one another."""


UNREPORTED = Usage()

COUNT_MOST = 2**53 - 1
"""The largest count: every reader of a record can represent integers up to it exactly."""


READ_MOST = 100_000_000
"""The most tokens of a prompt: a larger figure counts as absent."""


def count(value: Any) -> int | None:
    """Return ``value`` if it is a valid count, else None."""
    return value if type(value) is int and 0 <= value <= COUNT_MOST else None


def reported_output(
    output: int | None, reasoning: int, prompt: int | None, total: int | None
) -> tuple[int | None, bool]:
    """Return the output tokens of a usage, and whether the usage's figures contradict one another.

    Output is the shown text and the reasoning. Some upstreams report only the shown text as output, and the reasoning
    in a figure of its own or only in the total; the largest figure is taken.
    """
    if output is None:
        return None, False
    with_reasoning = output + reasoning if reasoning > output else output
    largest = max(with_reasoning, 0 if total is None or prompt is None else total - prompt)
    return largest, largest != output


def sum_of(latest: Usage, usages: Collection[Usage]) -> Usage:
    """Return the usage of all choices: output and reasoning are sums, all else is from the ``latest`` usage."""
    output = sum(usage.output_tokens or 0 for usage in usages)
    return replace(latest, output_tokens=output, reasoning_tokens=sum(usage.reasoning_tokens for usage in usages))


@dataclass(slots=True)
class Observed:
    """What the gateway observed of an answer, and the usage that the upstream reported for it."""

    usage: Usage
    tokens: int
    """The gateway's own count or estimate, over all choices, at most the grant of all choices."""
    is_final: bool
    """Whether the usage covers all of the text: it came after the last text, or together with the end."""
    is_whole: bool
    """Whether the upstream brought the answer to its end."""
    is_estimate: bool = False
    """Whether ``tokens`` is estimated from the text's length, because its pieces were not one token each."""
    recounted: int | None = None
    """A tokenizer's count of the observed text, where there is a tokenizer."""
    least: int = 0
    """A lower bound of the text's tokens: a smaller figure of the upstream is not believed."""
    surely: int | None = None
    """The tokens that were certainly observed in a text that came in pieces; ``tokens`` may be an estimate."""
    is_partial: bool = False
    """Whether the usage lacks choices that have not reported yet: then it is a lower bound of the output."""

    def is_belied(self) -> bool:
        """Return whether the upstream's figure for all of the text is too small for that text."""
        reported = self.usage.output_tokens
        return reported is not None and self.is_final and (reported < self.least or (reported == 0 and self.tokens > 0))


@dataclass(slots=True)
class Count:
    """Output tokens as counted and as billed, and the source of the count."""

    output_tokens: int
    billed_output_tokens: int
    source: str


def count_output(observed: Observed, granted: int) -> Count:
    """Return the count and the bill of a call's output.

    The upstream's own figure for all of the text is taken, unless it is too small for the observed text. A figure that
    was followed by more text is taken unless more tokens are certain. Otherwise a tokenizer's count of the text is
    taken, and without a tokenizer the gateway's own count. The bill is never above the grant.
    """
    reported, counted = observed.usage.output_tokens, observed.tokens
    certain = counted if observed.surely is None else observed.surely
    if reported is not None and observed.is_final and not observed.is_belied():
        output, source = reported, "upstream" if observed.is_whole else "continuous"
    elif reported and reported >= certain and not observed.is_partial:
        output, source = reported, "continuous"
    elif observed.recounted is not None:
        output, source = max(observed.recounted, reported or 0 if observed.is_partial else 0), "tokenizer"
    else:
        output, source = counted, "estimate" if observed.is_estimate else "counted"
    return Count(output, min(output, granted), source)


def reported_input(reported: int | None) -> int | None:
    """Return the input that the upstream reported, or None where the figure is not usable: zero, although there was
    something to read, or more than any model can have read."""
    return reported if reported and reported <= READ_MOST else None


@dataclass(slots=True)
class Input:
    """Input tokens as billed, and the source of the count, which is None where no input can be billed."""

    tokens: int
    source: str | None


def count_input(reported: int | None, recounted: int | None, *, estimate: int, bound: int) -> Input:
    """Return a call's input tokens: as the upstream reported, else as a tokenizer counted, else the estimate.

    The upstream's figure is used, however much was held. A count made here is at most ``bound``, which was held.
    """
    if bound == 0:
        return Input(0, None)
    if reported is not None:
        return Input(reported, "upstream")
    for tokens, source in ((recounted, "tokenizer"), (estimate, "estimate")):
        if tokens is not None:
            return Input(min(tokens, bound), source)
    raise AssertionError("there always is an estimate")


def outcome(
    observed: Observed,
    input_count: Input,
    *,
    granted: int,
    finish: str,
    ttft_ms: int | None,
    duration_ms: int,
    threads: tuple[str, ...],
) -> Outcome:
    """Return the outcome of an answered call."""
    usage, counted = observed.usage, count_output(observed, granted)
    return Outcome(
        was_answered=True,
        finish=finish,
        output_tokens=counted.output_tokens,
        billed_output_tokens=counted.billed_output_tokens,
        input_tokens=input_count.tokens,
        input_source=input_count.source,
        cached_tokens=min(usage.cached_tokens, input_count.tokens),
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
    """Return how a call ended, from the reasons of its choices: one choice that was cut makes the call a cut call.

    No reason, or an unknown reason, means that the answer came to its end.
    """
    worst = reasons[0] if len(reasons) == 1 else next((reason for reason in _WORST_FIRST if reason in reasons), "stop")
    if worst == "length":
        return bound_by if uses_whole_grant else "context"
    return _FINISHES.get(worst, "complete")
