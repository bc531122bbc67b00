"""Departures that leaving does not identify, and the share of the profit that a menu keeps under each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pricing.estimate.effects import kept_in
from pricing.estimate.laws.leaving import LeavingTests
from pricing.estimate.laws.readings import as_timed
from pricing.estimate.laws.urgency import Mixing
from pricing.estimate.observations.statistics import Offer, Statistics
from pricing.market.answers import Floats
from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of, worth_at

Json = dict[str, Any]

SHARES = (0.1, 0.2)
"""Shares of the conversations, left at a constant rate for another reason than impatience, whose effect is stated."""

SOONER = 2.0
"""The stated effect is that of customers who leave at this multiple of the rate at which they discount."""

VALUES: Floats = np.geomspace(1.2, 0.3, 57)
"""The multiples of the estimated value that are tried, to find one that puts customers into the same tiers."""


@dataclass(frozen=True, slots=True)
class Untold:
    """The profit that a menu keeps where customers leave for other reasons than it assumes.

    Attributes:
        per_s: the rate of leaving for another reason that the first of ``SHARES`` of the conversations implies, 1/s.
        kept: for each of ``SHARES``, the share of the profit that the menu keeps if these conversations are left so.
        sooner_kept: the share of the profit that the menu keeps if customers leave ``SOONER`` times as soon as they
            discount.
    """

    per_s: float
    kept: tuple[float, ...]
    sooner_kept: float


def untold(
    observed: Statistics,
    leaving: LeavingTests,
    estimated: Json,
    market_with: Callable[[tuple[Floats, Floats]], Json],
    raw: Mixing,
    *,
    is_value_said: bool,
) -> Untold:
    """Return the profit that the menu of an estimate keeps in markets in which customers would have left alike.

    Args:
        observed: the observed behaviour of customers.
        leaving: how leaving was read.
        estimated: the market that the menu is made for.
        market_with: returns the market with another distribution of urgency: rates and shares. Shapes (n,), (n,).
        raw: the distribution of urgency, as leaving and choices identify it.
        is_value_said: whether the value was stated; otherwise the market of customers who leave sooner has the value at
            which they take the same tiers.
    """
    timed = as_timed(observed.customers, leaving)
    rate = float(timed.conversations.sum()) / float(timed.waited_s.sum())
    rates = raw.urgency_per_s
    others = [market_with((np.maximum(rates - share * rate, rates / 10), raw.share)) for share in SHARES]
    patient = market_with((rates / SOONER, raw.share))
    if not is_value_said:
        patient["value_nanousd"] *= _multiple(estimated, patient, observed.offers)
    *kept, sooner_kept = kept_in([*others, patient], estimated)
    return Untold(SHARES[0] * rate, tuple(kept), sooner_kept)


def _multiple(estimated: Json, patient: Json, offers: Sequence[Offer]) -> float:
    """Return the multiple of the value at which more patient customers take the tiers of the estimated market."""
    here, there = valuation_of(read_market(estimated)), valuation_of(read_market(patient))
    apart = np.zeros(len(VALUES))
    for offer in offers:
        wanted = _taken(here, offer, 1.0)
        apart += [np.abs(_taken(there, offer, multiple) - wanted).sum() for multiple in VALUES.tolist()]
    return float(VALUES[int(np.argmin(apart))])


def _taken(valuation: Valuation, offer: Offer, multiple: float) -> Floats:
    """Return the share of conversations that takes each tier; the first takes none. Shape (tiers + 1,)."""
    steps = valuation.steps.tokens
    caps = np.array([steps[-1] if cap is None else cap for cap in offer.caps_tokens])
    places, back = np.unique(np.searchsorted(steps, caps, side="right"), return_inverse=True)
    gains = multiple * worth_at(valuation, places)[:, back] - np.array(offer.prices_nanousd)
    choice = np.where(gains.max(axis=1) >= 0, 1 + gains.argmax(axis=1), 0)
    taken: Floats = np.bincount(choice, weights=valuation.share, minlength=gains.shape[1] + 1).astype(np.float64)
    return taken
