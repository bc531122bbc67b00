"""Prices and caps to try on some new customers, so that their choices identify the value of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pricing.estimate.comparison import BEYOND, Sold
from pricing.estimate.fit import Estimate
from pricing.market.answers import Floats
from pricing.market.worth import Valuation, worth_at

APART = 1.1
"""Values this far apart, as a ratio, are to be distinguished ..."""

FINE = 1.025
"""... wherever they lie: neighbours on the grid of values differ by this ratio."""

TOLD = 8.0
"""Two values are distinguished where the choices under them differ by this much, in chi-squared."""

LADDER = 8
"""The number of steps that are tried up, and down, evenly in logarithms."""

UNSAID = 2.0
"""An unidentified value may be larger or smaller than the stated value by this factor."""

OPEN_MOST = 4.0
"""Values are distinguished up to this multiple of the least possible value."""

LAPSES = 0.01
"""The share of customers who choose for reasons outside the model."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an experiment may do.

    Attributes:
        arms: the most menus beside the menu in force.
        price_factor_max: the most by which a price may be multiplied or divided.
        cap_factor_max: the most by which a cap may be multiplied or divided; 1 leaves caps unchanged.
        customers: the number of new customers that each arm may expect.
    """

    arms: int = 4
    price_factor_max: float = 1.5
    cap_factor_max: float = 1.0
    customers: int = 200


@dataclass(frozen=True, slots=True)
class Experiment:
    """Menus to try beside the menu in force.

    Attributes:
        arms: menus, each with its caps and prices.
        told_apart: the share of the possible values, evenly in logarithms, that are distinguished from those a tenth away.
        untold: the ratio between the ends of the widest range of values that are not distinguished.
    """

    arms: tuple[Sold, ...]
    told_apart: float
    untold: float


def experiment_of(valuation: Valuation, between: tuple[float, float], offer: Sold, limits: Limits) -> Experiment:
    """Return the arms that distinguish values a tenth apart, wherever between two ends the value of an answer lies.

    Choices identify a value where a price or a cap separates customers who take a tier from those who do not: between
    two such values, all values put the same customers into the same tiers. Arms are selected greedily: each is the arm
    that adds most to distinguishing values a tenth apart, beyond the earlier arms. Of equally good arms, the arm with
    the smaller step is selected.

    Args:
        valuation: the estimated market; its value is not used.
        between: the ends of the possible values, nano-units.
        offer: the menu in force. Choices from this menu count as well.
        limits: what the experiment may do.

    Returns:
        The arms; none where no menu within the limits adds information.
    """
    values = np.exp(np.arange(np.log(between[0] / APART), np.log(between[1] * APART), np.log(FINE)))
    apart = max(1, round(float(np.log(APART) / np.log(FINE))))
    choices = _Choices(valuation, values)
    arms, power = list[Sold](), limits.customers * _differs(choices.shares(offer), apart)
    steps = [
        (arm, size, limits.customers * _differs(choices.shares(arm), apart)) for arm, size in _steps(offer, limits)
    ]
    while len(arms) < limits.arms and steps:
        scores = [(float(np.minimum(power + gain, TOLD).sum()) - 0.01 * size, -size) for _, size, gain in steps]
        best = max(range(len(steps)), key=lambda place: scores[place])
        if float(np.minimum(power + steps[best][2], TOLD).sum()) < float(np.minimum(power, TOLD).sum()) + TOLD / 4:
            break
        arms.append(steps[best][0])
        power = power + steps[best][2]
    is_told = power >= TOLD
    return Experiment(tuple(arms), float(is_told.mean()), _widest(is_told, apart))


def in_question(estimate: Estimate) -> tuple[float, float]:
    """Return the range of possible values: the interval from choices, or half to twice the stated value without choices.

    The upper end is at most ``OPEN_MOST`` times the lower end of the interval. Nano-units.
    """
    value_nanousd, by_choices = float(estimate.market["value_nanousd"]), estimate.value
    if by_choices is None:
        return value_nanousd / UNSAID, value_nanousd * UNSAID
    return by_choices.low_nanousd, min(by_choices.high_nanousd, OPEN_MOST * by_choices.low_nanousd)


class _Choices:
    """The choices from an offer at each possible value of an answer. ``values``: nano-units, shape (values,)."""

    def __init__(self, valuation: Valuation, values: Floats) -> None:
        self._of_one = replace(valuation, value=np.ones(len(valuation.share)))
        self._values = values

    def shares(self, offer: Sold) -> Floats:
        """Return the share that takes each tier; the first is the share that takes none. Shape (values, tiers + 1)."""
        caps = np.searchsorted(self._of_one.steps.tokens, offer.caps_tokens, side="right")
        gains = self._values[:, None, None] * worth_at(self._of_one, caps) - offer.prices
        with_none = np.concatenate((np.zeros((*gains.shape[:2], 1)), gains), axis=2)
        taken = with_none.argmax(axis=2)
        shares = np.stack([(taken == option) @ self._of_one.share for option in range(with_none.shape[2])], axis=1)
        mixed: Floats = (1 - LAPSES) * shares + LAPSES / shares.shape[1]
        return mixed


def _differs(shares: Floats, apart: int) -> Floats:
    """Return chi-squared, per customer, between the choices at each value and at the value ``apart`` places later."""
    at_value, at_neighbour = shares[:-apart], shares[apart:]
    chi_squared: Floats = ((at_value - at_neighbour) ** 2 / (at_value + at_neighbour)).sum(axis=1)
    return chi_squared


def _steps(offer: Sold, limits: Limits) -> Iterator[tuple[Sold, float]]:
    """Yield offers that differ by one step, with the size of the step.

    A step changes the prices from one tier on, the price of one tier, or the cap of one tier.
    """
    number = len(offer.prices)
    ladder = np.arange(1, LADDER + 1) / LADDER
    for factor in np.exp(np.concatenate((-ladder, ladder)) * np.log(limits.price_factor_max)).tolist():
        for tier in range(number):
            for end in {tier + 1, number}:
                prices = offer.prices.copy()
                prices[tier:end] = _within(prices[tier:end], factor, limits.price_factor_max)
                if factor != 1 and np.all(np.diff(prices) >= 0) and np.any(prices != offer.prices):
                    yield replace(offer, prices=prices), abs(float(np.log(factor)))
    for factor in np.exp(np.concatenate((-ladder, ladder)) * np.log(limits.cap_factor_max)).tolist():
        for tier in range(number):
            if factor == 1 or offer.caps_tokens[tier] == BEYOND:
                continue
            caps = offer.caps_tokens.copy()
            caps[tier] = int(_within(caps[tier : tier + 1].astype(np.float64), factor, limits.cap_factor_max)[0])
            if np.all(np.diff(caps) > 0) and caps[tier] != offer.caps_tokens[tier]:
                yield replace(offer, caps_tokens=caps), abs(float(np.log(factor)))


def _within(amounts: Floats, factor: float, most: float) -> Floats:
    """Return the amounts multiplied by a factor and rounded, but changed by at most the factor ``most``."""
    moved: Floats = np.clip(np.round(amounts * factor), np.ceil(amounts / most), np.floor(amounts * most))
    return moved


def _widest(is_told: NDArray[np.bool_], apart: int) -> float:
    """Return the ratio between the ends of the widest range of values that are not distinguished."""
    places = np.flatnonzero(is_told)
    ends = np.concatenate(([-1], places, [len(is_told)]))
    gap = int(np.diff(ends).max()) - 1
    return float(APART * FINE**gap) if gap else APART
