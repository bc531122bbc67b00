"""The law of an answer's length: the number of tokens after which the aligned model has the decisive answer."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

UNITY_SLACK = 1e-9
"""How far above 1 probabilities may sum through rounding alone."""


class Lengths(Protocol):
    """A distribution over 1, 2, 3, … tokens; where it sums to less than 1, the remaining answers never finish."""

    def length(self, u: float) -> int | None:
        """Return the length at quantile ``u`` in [0, 1), in tokens; None is an answer that never finishes."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """The decisive answer arrives at a constant rate per token: f(n) = e^(-(n-1)/m) - e^(-n/m).

    That is an exponential time with mean ``m`` rounded up to the token it falls in, so the mean length is a little
    above ``m``: 1/(1 - e^(-1/m)), about m + 1/2.
    """

    mean_tokens: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean_tokens) and self.mean_tokens > 0):
            raise ValueError("mean_tokens is a positive number.")

    def length(self, u: float) -> int:
        return max(1, math.ceil(-self.mean_tokens * math.log1p(-u)))


@dataclass(frozen=True, slots=True)
class Table:
    """Measured lengths: ``tokens`` rising, with the probability of each; the rest never finishes."""

    tokens: tuple[int, ...]
    probability: tuple[float, ...]
    _cumulative: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.probability) or not self.tokens:
            raise ValueError("A table of lengths has one probability for each length.")
        if any(after <= before for before, after in zip((0, *self.tokens), self.tokens, strict=False)):
            raise ValueError("The lengths of a table are positive and rise.")
        if any(not share >= 0 for share in self.probability) or sum(self.probability) > 1 + UNITY_SLACK:
            raise ValueError("The probabilities of a table are not negative and sum to at most 1.")
        object.__setattr__(self, "_cumulative", tuple(accumulate(self.probability)))

    def length(self, u: float) -> int | None:
        index = bisect_right(self._cumulative, u)
        if index < len(self.tokens):
            return self.tokens[index]
        return self.tokens[-1] if self._cumulative[-1] >= 1 - UNITY_SLACK else None
