"""The speed of generation, from the times of the first and the last token."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import PaceCounts

CALLS_LEAST = 10

CALLS_COMPARED = 100
"""The fewest streamed calls for which the correlation of tokens and time is computed."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Speed and first-token delay, each with its standard error.

    Attributes:
        tokens_per_s: tokens generated in a second of generation.
        first_token_s: time to the first token less the time of one token, as in ``market.json``; at least 0.
        calls: the number of streamed calls behind the estimate.
        correlation: correlation of an answer's tokens and the time that they take, None where there are too few calls.
    """

    tokens_per_s: float
    tokens_per_s_error: float
    first_token_s: float
    first_token_s_error: float
    calls: int
    correlation: float | None = None


def estimate_pace(counts: PaceCounts) -> Pace:
    """Return the speed: all tokens after the first token, divided by all seconds after the first token.

    Errors are those of a ratio of means (delta method). Identifying assumption: the time of a token does not depend on
    how many tokens have come. Not identified: the delay of calls that are not streamed, because they record no first
    token; and how speed varies from call to call, for which the market has no field.

    Raises:
        CannotEstimate: fewer than ``CALLS_LEAST`` streamed calls, or none with a second token after the first.
    """
    if counts.calls < CALLS_LEAST:
        raise CannotEstimate(f"{counts.calls:,} streamed calls do not tell the speed; {CALLS_LEAST} are the least.")
    if counts.tokens <= 0 or counts.seconds <= 0:
        raise CannotEstimate(
            f"None of {counts.calls:,} streamed calls has a second token that came after the first, so nothing tells the speed."
        )
    speed = counts.tokens / counts.seconds
    residual = counts.tokens_squared - 2 * speed * counts.tokens_seconds + speed**2 * counts.seconds_squared
    first = counts.ttft_s / counts.calls
    spread = max(0.0, counts.ttft_squared / counts.calls - first**2)
    return Pace(
        tokens_per_s=speed,
        tokens_per_s_error=math.sqrt(max(0.0, residual)) / counts.seconds,
        first_token_s=max(0.0, first - 1 / speed),
        first_token_s_error=math.sqrt(spread / counts.calls),
        calls=counts.calls,
        correlation=_correlation(counts),
    )


def _correlation(counts: PaceCounts) -> float | None:
    mean_tokens, mean_s = counts.tokens / counts.calls, counts.seconds / counts.calls
    tokens_spread = counts.tokens_squared / counts.calls - mean_tokens**2
    seconds_spread = counts.seconds_squared / counts.calls - mean_s**2
    if counts.calls < CALLS_COMPARED or tokens_spread <= 0 or seconds_spread <= 0:
        return None
    return (counts.tokens_seconds / counts.calls - mean_tokens * mean_s) / math.sqrt(tokens_spread * seconds_spread)
