"""The steps in which a conversation is served: when each step arrives, and with what probability the answer ends then."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pricing.market.fields import NotAMarket
from pricing.market.market import STEPS_MAX, ExponentialLength, Market, TableLength

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TAIL_NANOUSD = 1e-7
"""The worth, in nano-units, that may lie beyond the last step of answers that have no longest length."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The grid of caps. A cap is the number k of steps served, from 0 to ``len(tokens)``.

    Attributes:
        tokens: tokens after each step, rising. Shape (m,).
        size: tokens of each step.
        time_s: when each step has arrived, seconds after the call.
        wait_s: seconds from the arrival of the previous step, or from the call, to the arrival of the step.
        probability: probability that the answer ends with the step.
        survival: probability that the answer is longer than the previous steps.
        first_token_s: time to the first token less the time of one token.
        tokens_per_s: speed of generation.
        uncapped: whether the last step means no cap.
        left_out: probability of answers longer than the last step where that step means no cap: part of the error.
    """

    tokens: Ints
    size: Floats
    time_s: Floats
    wait_s: Floats
    probability: Floats
    survival: Floats
    first_token_s: float
    tokens_per_s: float
    uncapped: bool
    left_out: float = 0.0

    def only(self, step: int) -> Steps:
        """Return a single step, with the time and the probabilities that it has among all steps."""
        single_step = slice(step, step + 1)
        return replace(
            self,
            tokens=self.tokens[single_step],
            size=self.size[single_step],
            time_s=self.time_s[single_step],
            wait_s=self.wait_s[single_step],
            probability=self.probability[single_step],
            survival=self.survival[single_step],
        )

    def arrival_s(self, tokens: Ints) -> Floats:
        """Return when token n arrives, seconds after the call."""
        return self.first_token_s + tokens / self.tokens_per_s

    def cap_tokens(self, cap: int) -> int | None:
        """Return a cap in tokens, None where the cap cuts no answer."""
        if cap == len(self.tokens) and self.uncapped:
            return None
        return int(self.tokens[cap - 1]) if cap else 0


def steps_of(market: Market) -> Steps:
    """Return the steps of a market.

    A table is served in its own steps, exponential answers token by token. Where nothing bounds the answers, the
    steps continue until the rest is worth less than ``TAIL_NANOUSD``.

    Raises:
        NotAMarket: exponential answers need more steps than can be priced.
    """
    if isinstance(market.answer_length, TableLength):
        return _table(market, market.answer_length)
    return _exponential(market, market.answer_length)


def _table(market: Market, length: TableLength) -> Steps:
    tokens = np.array(length.tokens, dtype=np.int64)
    probability = np.array(length.probability)
    survival = 1.0 - np.concatenate(([0.0], np.cumsum(probability)[:-1]))
    steps_kept = (
        len(tokens) if market.cap_tokens_max is None else int(np.searchsorted(tokens, market.cap_tokens_max, "right"))
    )
    tokens, time_s = tokens[:steps_kept], market.first_token_s + tokens[:steps_kept] / market.tokens_per_s
    return Steps(
        tokens=tokens,
        size=np.diff(tokens, prepend=0).astype(np.float64),
        time_s=time_s,
        wait_s=np.diff(time_s, prepend=0.0),
        probability=probability[:steps_kept],
        survival=np.maximum(survival[:steps_kept], 0.0),
        first_token_s=market.first_token_s,
        tokens_per_s=market.tokens_per_s,
        uncapped=market.cap_tokens_max is None,
    )


def _exponential(market: Market, length: ExponentialLength) -> Steps:
    mean = length.mean_tokens
    uncapped = market.cap_tokens_max is None
    if market.cap_tokens_max is not None:
        last = market.cap_tokens_max
    else:
        last = math.ceil(mean * math.log(max(2.0**53, max(market.value_nanousd) / TAIL_NANOUSD)))
    if last > STEPS_MAX:
        raise NotAMarket(
            f"Answers of up to {last:,} tokens are more than the {STEPS_MAX:,} steps that can be priced; "
            "lower cap_tokens_max or give answer_length as a table of coarser steps."
        )
    before = np.arange(last, dtype=np.float64)
    survival = np.exp(-before / mean)
    probability = survival * -math.expm1(-1.0 / mean)
    time_s = market.first_token_s + (before + 1.0) / market.tokens_per_s
    return Steps(
        tokens=np.arange(1, last + 1, dtype=np.int64),
        size=np.ones(last),
        time_s=time_s,
        wait_s=np.diff(time_s, prepend=0.0),
        probability=probability,
        survival=survival,
        first_token_s=market.first_token_s,
        tokens_per_s=market.tokens_per_s,
        uncapped=uncapped,
        left_out=math.exp(-last / mean) if uncapped else 0.0,
    )
