"""How few tiers are enough: the profit of each number of tiers, when callers buy once and when they resume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, own_tokens, tokens_at, worth_at
from pricing.mechanism.mechanism import Allocation, full_menu
from pricing.mechanism.resumption import resumption
from pricing.mechanism.rounding import Published, publish
from pricing.mechanism.tiers import best_tiers

TIERS_MAX = 8
"""The largest number of tiers considered by default."""


@dataclass(frozen=True, slots=True)
class TierLine:
    """The profit of the best menu of at most ``tiers`` tiers, in nano-units for each conversation offered."""

    tiers: int
    profit: float
    profit_if_resumed: float
    caps_tokens: tuple[int | None, ...]
    prices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Advice:
    """How many tiers to sell: the fewest that lose at most the share ``within`` of profit, bought once and if resumed.

    ``tiers`` compares profit with the full menu's profit, and is None where every line loses more. ``lasting`` compares
    profit if resumed with the largest profit if resumed of the lines.
    """

    lines: tuple[TierLine, ...]
    full_menu_profit: float
    within: float
    tiers: int | None
    lasting: int

    @property
    def sentence(self) -> str:
        """Return the advice as a sentence."""
        within_best = f"within {100 * self.within:g} % of"
        bought_once = f"Not even {self.lines[-1].tiers} tiers come {within_best} the full menu"
        if self.tiers is not None:
            bought_once = f"{_come(self.tiers)} {within_best} the full menu"
        resumed = f"{_come(self.lasting)} {within_best} the best of these menus"
        return f"{bought_once}; if callers resume where that pays, {resumed}."


def _come(tiers: int) -> str:
    return "1 tier comes" if tiers == 1 else f"{tiers} tiers come"


def margins(valuation: Valuation, published: Published) -> Floats:
    """Return the operator's margin on each type that buys its own tier once. Nano-units, shape (n,)."""
    return published.paid() - own_tokens(valuation, published.by_type()) * valuation.cost_per_token


def advise(valuation: Valuation, *, most: int = TIERS_MAX, within: float = 0.01) -> Advice:
    """Return the profit of each number of tiers up to ``most``, and the fewest tiers that lose at most ``within``."""
    full = full_menu(valuation)
    lines = []
    for tiers, menu in enumerate(best_tiers(valuation, most), start=1):
        published = publish(valuation, menu.caps)
        margin = margins(valuation, published)
        lines.append(
            TierLine(
                tiers=tiers,
                profit=float(np.dot(valuation.share, margin)),
                profit_if_resumed=resumption(valuation, published, margin).profit,
                caps_tokens=tuple(valuation.steps.cap_tokens(cap) for cap in published.caps.tolist()),
                prices=tuple(published.prices.tolist()),
            )
        )
    best = max(line.profit_if_resumed for line in lines)
    fewest = next((line.tiers for line in lines if line.profit >= (1 - within) * full.profit), None)
    lasting = next(line.tiers for line in lines if line.profit_if_resumed >= best - within * abs(best))
    return Advice(tuple(lines), full.profit, within, fewest, lasting)


def if_resumed(valuation: Valuation, by_type: Ints) -> float:
    """Return the profit of a menu of caps by type when callers resume where that pays. Nano-units."""
    published = publish(valuation, by_type)
    return resumption(valuation, published, margins(valuation, published)).profit


def best_for_caps(valuation: Valuation, caps: Ints) -> Allocation:
    """Return the most profitable assignment of types to some caps or to none: exact, by a running maximum over caps.

    Args:
        valuation: n types, m steps.
        caps: caps in steps, rising strictly. Shape (k,).
    """
    worth = worth_at(valuation, caps)
    tokens = tokens_at(valuation, caps)
    types = len(valuation.share)
    surplus = np.zeros((types, len(caps) + 1))
    surplus[:, 1:] = (
        valuation.cumulative[:, None] * worth - valuation.share[:, None] * tokens * valuation.cost_per_token
    )
    surplus[1:, 1:] -= valuation.cumulative[:-1, None] * worth[:-1]
    best = np.zeros(len(caps) + 1)
    choice = np.zeros(surplus.shape, dtype=np.int64)
    for row in range(types - 1, -1, -1):
        total = surplus[row] + best
        best = np.maximum.accumulate(total)
        choice[row] = np.maximum.accumulate(np.where(total == best, np.arange(len(total)), 0))
    place, by_type = len(caps), np.zeros(types, dtype=np.int64)
    for row in range(types):
        place = int(choice[row, place])
        by_type[row] = caps[place - 1] if place else 0
    return Allocation(by_type, float(best[-1]))
