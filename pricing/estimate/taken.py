"""Shares of the tiers of each menu, observed and as the estimate predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pricing.estimate.laws.choices import Intervals
from pricing.estimate.laws.urgency import Mixing
from pricing.estimate.observations.statistics import Statistics


def taken_shares(seen: Statistics, offers: Sequence[Intervals], mixing: Mixing) -> list[dict[str, Any]]:
    """Return the shares of conversations by tier, observed and predicted, of each menu with observed choices.

    Args:
        seen: customers with the tier that each took, and conversations by the tier named for them.
        offers: the urgencies that take each tier, in the order of the menus.
        mixing: the distribution of urgency.

    Returns:
        For each menu, ``tiers`` (0 is no tier, included where refusals were counted), ``observed`` and ``predicted``.
    """
    shares = []
    for place, (offer, ends) in enumerate(zip(seen.offers, offers, strict=True)):
        counts = np.zeros(len(ends.low))
        if offer.taken is not None:
            counts += [offer.refused or 0, *offer.taken]
        if seen.customers.choices is not None:
            choice = seen.customers.choices[:, place]
            chose = choice >= 0
            counts += np.bincount(choice[chose], seen.customers.conversations[chose], len(counts))
        first = 0 if counts[0] else 1
        rates = mixing.urgency_per_s[:, None]
        predicted = mixing.share @ ((rates > ends.low) & (rates <= ends.high))
        if counts.sum() and predicted[first:].sum():
            shares.append(
                {
                    "tiers": list(range(first, len(counts))),
                    "observed": (counts[first:] / counts.sum()).tolist(),
                    "predicted": (predicted[first:] / predicted[first:].sum()).tolist(),
                }
            )
    return shares
