"""The markets near the assumed market: each differs from it a little in one quantity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pricing.market.fields import NotAMarket, number
from pricing.market.worth import CELLS_KEPT, Valuation


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """How far the market may differ from the assumed market, one quantity at a time.

    Attributes:
        pace: the share by which answers may come later or sooner.
        length: the share by which answers may be longer or shorter.
        urgency: the share by which customers may be more or less urgent.
        value_sigma: standard deviation of the logarithm of the value between customers of one urgency.
        loss_max: the share of the most profitable menu's profit that may be lost in the assumed market.
        single_share_min: in each other market, the least profit as a share of the best single plan of that market.
    """

    pace: float = 0.02
    length: float = 0.02
    urgency: float = 0.1
    value_sigma: float = 0.1
    loss_max: float = 0.02
    single_share_min: float = 0.97

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Neighbourhood:
        """Return the neighbourhood that a menu states.

        Raises:
            NotAMarket: a field is no number from 0 to below 1.
        """
        fields = {name: number(given, name, within="robust.", least=0.0) for name in cls.__dataclass_fields__}
        if max(fields.values()) >= 1 or len(given) != len(fields):
            raise NotAMarket(f"robust has {', '.join(fields)}, each from 0 to below 1.")
        return cls(**fields)

    def around(self, valuation: Valuation) -> list[tuple[str, Valuation, float]]:
        """Return the market and the markets near it: the name of the change, the market, and the added dispersion."""
        near = [("as taken", valuation, 0.0)]
        for name, deviation, shift in (
            ("pace", self.pace, more_urgent),
            ("length", self.length, longer),
            ("urgency", self.urgency, more_urgent),
        ):
            if deviation > 0:
                near += [
                    (f"{name} {sign * deviation:+.0%}", shift(valuation, 1 + sign * deviation), 0.0) for sign in (1, -1)
                ]
        if self.value_sigma > 0:
            near.append((f"value sigma {self.value_sigma:g}", valuation, self.value_sigma))
        return near


def more_urgent(valuation: Valuation, factor: float) -> Valuation:
    """Return the market with every urgency multiplied by a factor: the same as every wait multiplied by that factor.

    In every family the delay factor and the cost of a wait depend on urgency times time.
    """
    return _kept_anew(replace(valuation, urgency_per_s=valuation.urgency_per_s * factor, kept=None))


def dearer(valuation: Valuation, factor: float) -> Valuation:
    """Return the market with the cost of a token multiplied by a factor."""
    return replace(valuation, cost_per_token=valuation.cost_per_token * factor)


def worthier(valuation: Valuation, factor: float) -> Valuation:
    """Return the market with the value of an answer multiplied by a factor."""
    return replace(valuation, value=valuation.value * factor)


def longer(valuation: Valuation, factor: float) -> Valuation:
    """Return the market with the length of every answer multiplied by a factor, on the same grid of caps.

    The new P(length > n) is the old P(length > n / factor), on straight lines between the steps. Answers beyond the
    last step end there if that step means no cap, and otherwise never end.
    """
    steps = valuation.steps
    tokens = np.concatenate(([0.0], steps.tokens.astype(np.float64)))
    beyond = np.concatenate(([1.0], np.maximum(steps.survival - steps.probability, 0.0)))
    curve = np.interp(tokens / factor, tokens, beyond)
    if steps.uncapped:
        curve[-1] = beyond[-1]
    chances = replace(steps, probability=curve[:-1] - curve[1:], survival=curve[:-1])
    return replace(valuation, steps=chances)


def _kept_anew(valuation: Valuation) -> Valuation:
    if len(valuation.share) * len(valuation.steps.tokens) > CELLS_KEPT:
        return valuation
    return replace(valuation, kept=valuation.left(slice(None)))
