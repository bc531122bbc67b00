"""A menu's profit where the market differs from the assumed one, and the difference at which it no longer pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pricing.market.market import Market
from pricing.market.neighbourhood import dearer, longer, more_urgent, worthier
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.demand import Crowd, crowd_of
from pricing.mechanism.offers import Offer
from pricing.menus.aims import TYPES_MOST, thinned
from pricing.menus.robust import best_single

SHIFTS = (-0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2)
"""The shares by which each quantity is shifted."""

FURTHEST = 0.5
"""The largest shift at which a break-even is searched for."""

STRIDES = 10
"""The number of strides up to ``FURTHEST``; all are tried in order, because a lead may be lost and return."""

CELLS_SHIFTED = 1 << 19
"""The most types times steps of a shifted market; neighbouring types of a larger market are merged, but no fewer types
remain than in a search."""

FINE = 0.005
"""The precision of a break-even shift."""

Change = Callable[[Valuation, float], Valuation]

CHANGES: Mapping[str, Change] = {
    "value": worthier,
    "cost": dearer,
    "pace": lambda valuation, factor: more_urgent(valuation, 1 / factor),
    "length": longer,
    "urgency": more_urgent,
}
"""The quantities that are shifted: the value of an answer, the cost of a token, tokens per second, lengths, urgency."""


@dataclass(frozen=True, slots=True)
class Line:
    """The profit of a menu as one quantity is shifted.

    Attributes:
        thing: the name of the quantity in ``CHANGES``.
        shifts: the shares by which the quantity is shifted. Shape (s,).
        profits: profits of the menu, nano-units for each conversation offered. Shape (s,).
        singles: profits of the single plan that is best without a shift, at its price, nano-units for each conversation
            offered. Shape (s,).
        below, above: the nearest shifts down and up at which the menu earns less than that single plan does without a
            shift; None where there is no such shift up to ``FURTHEST``.
    """

    thing: str
    shifts: tuple[float, ...]
    profits: tuple[float, ...]
    singles: tuple[float, ...]
    below: float | None
    above: float | None


def sensitivity(market: Market, menu: Mapping[str, Any], shifts: Sequence[float] = SHIFTS) -> list[Line]:
    """Return the profit of a menu as one quantity at a time is shifted; customers choose again each time.

    Args:
        market: the menu's market.
        menu: a ``menu.json``, of which only the tiers are read.
        shifts: the shares by which each quantity is shifted, above -1.

    Raises:
        NotAMarket: even with few types, the market has too many steps to be shifted.
    """
    valuation = valuation_of(market)
    valuation = thinned(valuation, max(TYPES_MOST, CELLS_SHIFTED // len(valuation.steps.tokens)))

    def crowd(change: Change, shift: float) -> Crowd:
        changed = valuation if shift == 0 else change(valuation, 1 + shift)
        return crowd_of([(1.0, changed, market.value_sigma, market.taste_nanousd)])

    offer = offer_in(valuation, menu["tiers"])
    unshifted = crowd(worthier, 0.0)
    price, earned = best_single(unshifted)
    single = Offer(np.array([len(valuation.steps.tokens)]), np.array([price]))
    lines = []
    for thing, change in CHANGES.items():
        if thing == "cost" and not valuation.cost_per_token:
            continue
        crowds = [crowd(change, shift) for shift in shifts]
        lines.append(
            Line(
                thing=thing,
                shifts=tuple(shifts),
                profits=tuple(shifted.profit(offer) for shifted in crowds),
                singles=tuple(shifted.profit(single) if price else 0.0 for shifted in crowds),
                below=_break_even(partial(_lead, crowd, change, offer, earned), -1),
                above=_break_even(partial(_lead, crowd, change, offer, earned), 1),
            )
        )
    return lines


def _lead(crowd: Callable[[Change, float], Crowd], change: Change, offer: Offer, earned: float, shift: float) -> float:
    return crowd(change, shift).profit(offer) - earned


def offer_in(valuation: Valuation, tiers: Sequence[Mapping[str, Any]]) -> Offer:
    """Return tiers of a ``menu.json`` as an offer in a market; the caps may lie between steps."""
    steps = valuation.steps
    caps = [
        len(steps.tokens)
        if (cap := tier["conversation_tokens_max"]) is None
        else int(np.searchsorted(steps.tokens, cap, side="right"))
        for tier in tiers
    ]
    return Offer(np.array(caps, dtype=np.int64), np.array([tier["price_nanousd"] for tier in tiers], dtype=np.int64))


def _break_even(lead: Callable[[float], float], sign: int) -> float | None:
    """Return the nearest shift at which the lead is lost, to within ``FINE``: by strides first, then by bisection."""
    stride = FURTHEST / STRIDES
    last = 0.0
    for strides in range(1, STRIDES + 1):
        shift = sign * stride * strides
        if lead(shift) < 0:
            low, high = last, shift
            while abs(high - low) > FINE:
                middle = (low + high) / 2
                low, high = (low, middle) if lead(middle) < 0 else (middle, high)
            return round(high, 6)
        last = shift
    return None
