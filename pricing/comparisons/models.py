"""Several laws of the length of answers in one comparison: which model, prompt or depth of reasoning earns more to sell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats
from pricing.market.estimated import estimated
from pricing.market.fields import NotAMarket
from pricing.market.market import Market
from pricing.market.worth import Valuation, tokens_at, valuation_of, worth_at
from pricing.mechanism.mechanism import first_best, full_menu
from pricing.mechanism.tiers import best_tiers, single_plan

BAND = (2.5, 97.5)
"""Percentiles that an interval lies between."""


@dataclass(frozen=True, slots=True)
class Model:
    """What one model earns, nano-units for each conversation offered.

    Attributes:
        name: the model's, or the prompt's, or the depth's.
        profit: of the most profitable menu.
        single_plan: of the best single plan without a cap.
        first_best: if every urgency were known.
        interval: of the profit over the draws of an estimate, None for a market that is taken as known.
        behind: by how much the profit is less than that of the best model.
        behind_interval: the same over pairs of draws, None where neither market has draws.
    """

    name: str
    profit: float
    single_plan: float
    first_best: float
    interval: tuple[float, float] | None
    behind: float
    behind_interval: tuple[float, float] | None


def compare_models(markets: Mapping[str, Market], *, tiers: int | None = None) -> list[Model]:
    """Return what each model's most profitable menu earns, the best model first.

    Estimates of different models have independent draws, so the difference is looked at over all pairs of them.

    Args:
        markets: by the name of the model, who buys it, what it is worth, how long its answers are, what it costs.
        tiers: at most so many; None is the full menu.

    Raises:
        NotAMarket: fewer than two are given, or they differ in currency.
    """
    if len(markets) < 2 or len({market.currency for market in markets.values()}) > 1:
        raise NotAMarket("A comparison takes at least two markets, all of one currency.")
    valuations = {name: valuation_of(market) for name, market in markets.items()}
    profits = {name: _profit(valuation, tiers) for name, valuation in valuations.items()}
    drawn = {name: _drawn(market, profits[name], tiers) for name, market in markets.items()}
    best = max(profits, key=lambda name: profits[name])
    models = []
    for name, valuation in valuations.items():
        longest = np.array([len(valuation.steps.tokens)])
        single = single_plan(valuation, worth_at(valuation, longest)[:, 0], tokens_at(valuation, longest)[:, 0])
        behind = (drawn[best][:, None] - drawn[name]).ravel()
        models.append(
            Model(
                name=name,
                profit=profits[name],
                single_plan=single,
                first_best=first_best(valuation),
                interval=_interval(drawn[name]),
                behind=profits[best] - profits[name],
                behind_interval=_interval(behind) if name != best else None,
            )
        )
    return sorted(models, key=lambda model: model.behind)


def _profit(valuation: Valuation, tiers: int | None) -> float:
    return full_menu(valuation).profit if tiers is None else best_tiers(valuation, tiers)[-1].profit


def _drawn(market: Market, profit: float, tiers: int | None) -> Floats:
    """Return the profit in each draw of an estimate, or once where there are none. Shape (draws,)."""
    beside = estimated(market)
    if beside is None or not beside.draws:
        return np.array([profit])
    return np.array([_profit(valuation_of(draw), tiers) for draw in beside.draws])


def _interval(profits: Floats) -> tuple[float, float] | None:
    if len(profits) < 2:
        return None
    low, high = np.percentile(profits, BAND)
    return float(low), float(high)
