"""The conditions on a published menu's whole numbers: own choice, participation, monotone caps and prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.market.worth import Valuation
from pricing.mechanism.rounding import Published


@dataclass(frozen=True, slots=True)
class Conditions:
    """How far the menu is from breaking each condition, in nano-units.

    ``own_choice`` is the least loss of a type from taking a tier that is not its own, over all ordered pairs of a type
    and such a tier. ``participation`` is the least rent of a served type. ``error`` is the bound on the error of a
    worth; a slack is the difference of two worths, so below minus twice ``error`` its condition is broken. ``broken``
    is a sentence on a broken condition, None where all hold.
    """

    own_choice: float
    participation: float
    error: float
    broken: str | None


def conditions(valuation: Valuation, published: Published, names: list[str]) -> Conditions:
    """Return the slacks of a menu over all ordered pairs of types and tiers, and a sentence on a broken condition."""
    if not len(published.caps):
        return Conditions(0.0, 0.0, published.error, None)
    gains = published.worth - published.prices
    own_gain = published.own(gains)
    served = published.takes >= 0
    other_gains = gains
    other_gains[np.flatnonzero(served), published.takes[served]] = -np.inf
    best_other = other_gains.max(axis=1)
    slack = own_gain - np.maximum(best_other, np.where(served, -np.inf, best_other))
    least_rent = float(own_gain[served].min()) if served.any() else 0.0
    worst = int(np.argmin(slack))
    error = 2 * published.error
    broken = None
    if np.any(np.diff(published.caps) <= 0):
        broken = "The caps of the tiers do not rise."
    elif np.any(np.diff(published.prices) < 0):
        broken = "The prices of the tiers fall where their caps rise."
    elif np.any(np.diff(np.where(served, published.takes, -1)) > 0):
        broken = "A more urgent type takes a larger tier than a more patient one."
    elif least_rent < -error:
        row = int(np.flatnonzero(served)[np.argmin(own_gain[served])])
        broken = (
            f"The type of urgency {valuation.urgency_per_s[row]:g}/s pays {-least_rent:.3g} nano-units more "
            f"for {names[published.takes[row]]} than it is worth to it."
        )
    elif slack[worst] < -error:
        own_tier = int(published.takes[worst])
        broken = (
            f"The type of urgency {valuation.urgency_per_s[worst]:g}/s gains {-slack[worst]:.3g} nano-units by taking "
            f"{names[int(np.argmax(other_gains[worst]))]} instead of {names[own_tier] if own_tier >= 0 else 'nothing'}."
        )
    return Conditions(float(slack[worst]) if np.isfinite(slack[worst]) else 0.0, least_rent, published.error, broken)
