"""Compare several laws of the length of answers: which model, prompt or depth of reasoning earns more."""

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
"""The percentiles that bound an interval."""


@dataclass(frozen=True, slots=True)
class Model:
    """The profit of a model, nano-units for each conversation offered.

    Attributes:
        name: name of the model, the prompt or the depth of reasoning.
        profit: profit of the most profitable menu.
        single_plan: profit of the best single plan without a cap.
        first_best: profit if every urgency were known.
        interval: 95 % interval of the profit over the draws of an estimate, None for a market without several draws.
        behind: by how much the profit falls short of the profit of the best model.
        behind_interval: 95 % interval of ``behind`` over pairs of draws, None for the best model and where neither
            market has several draws.
    """

    name: str
    profit: float
    single_plan: float
    first_best: float
    interval: tuple[float, float] | None
    behind: float
    behind_interval: tuple[float, float] | None


def compare_models(markets: Mapping[str, Market], *, tiers: int | None = None) -> list[Model]:
    """Return the profit of each model's most profitable menu, the best model first.

    Estimates of different models have independent draws, so the difference is taken over all pairs of draws.

    Args:
        markets: the market of each model, by the model's name.
        tiers: the most tiers; None is the full menu.

    Raises:
        NotAMarket: there are fewer than two markets, or they differ in currency.
    """
    if len(markets) < 2 or len({market.currency for market in markets.values()}) > 1:
        raise NotAMarket("A comparison takes at least two markets, all of one currency.")
    valuations = {name: valuation_of(market) for name, market in markets.items()}
    profits = {name: _profit(valuation, tiers) for name, valuation in valuations.items()}
    profits_by_draw = {name: _drawn(market, profits[name], tiers) for name, market in markets.items()}
    best = max(profits, key=lambda name: profits[name])
    models = []
    for name, valuation in valuations.items():
        longest = np.array([len(valuation.steps.tokens)])
        single = single_plan(valuation, worth_at(valuation, longest)[:, 0], tokens_at(valuation, longest)[:, 0])
        behind = (profits_by_draw[best][:, None] - profits_by_draw[name]).ravel()
        models.append(
            Model(
                name=name,
                profit=profits[name],
                single_plan=single,
                first_best=first_best(valuation),
                interval=_interval(profits_by_draw[name]),
                behind=profits[best] - profits[name],
                behind_interval=_interval(behind) if name != best else None,
            )
        )
    return sorted(models, key=lambda model: model.behind)


def _profit(valuation: Valuation, tiers: int | None) -> float:
    return full_menu(valuation).profit if tiers is None else best_tiers(valuation, tiers)[-1].profit


def _drawn(market: Market, profit: float, tiers: int | None) -> Floats:
    """Return the profit in each draw of an estimate, or only ``profit`` where there are no draws. Shape (draws,)."""
    estimate = estimated(market)
    if estimate is None or not estimate.draws:
        return np.array([profit])
    return np.array([_profit(valuation_of(draw), tiers) for draw in estimate.draws])


def _interval(profits: Floats) -> tuple[float, float] | None:
    if len(profits) < 2:
        return None
    low, high = np.percentile(profits, BAND)
    return float(low), float(high)
