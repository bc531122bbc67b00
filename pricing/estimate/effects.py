"""The effect of a violated assumption: the share of a market's profit that a menu made for another market keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pricing.estimate.laws.grouped_customers import joined, rows_of_customers
from pricing.estimate.laws.leaving import LeavingTests
from pricing.estimate.laws.readings import as_timed
from pricing.estimate.laws.sampling import FULL, Sweeps
from pricing.estimate.laws.urgency import estimate_mixing
from pricing.estimate.observations.statistics import Statistics
from pricing.market.answers import Floats, Ints
from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.rounding import publish
from pricing.mechanism.tiers import best_tiers
from pricing.mechanism.uncertainty import profit_of

TIERS, ENOUGH = 4, 0.99
"""Compared menus have the fewest tiers, at most ``TIERS``, that earn this share of the profit of ``TIERS`` tiers."""


def kept(there: Mapping[str, Any], made_for: Mapping[str, Any]) -> float:
    """Return the profit of a menu made for another market, as a share of the profit of the market's own best menu."""
    return kept_in([there], made_for)[0]


def kept_in(theres: Sequence[Mapping[str, Any]], made_for: Mapping[str, Any]) -> list[float]:
    """Return the share that ``kept`` returns, for each of several markets."""
    menu, shares = _best(valuation_of(read_market(made_for))), []
    for truth in (valuation_of(read_market(there)) for there in theres):
        best_profit = profit_of(truth, *_best(truth))
        shares.append(profit_of(truth, *menu) / best_profit if best_profit > 0 else 1.0)
    return shares


def kept_at(market: Mapping[str, Any], values_nanousd: Sequence[float]) -> list[float]:
    """Return the share of the profit that a market's menu keeps at each of several other values of an answer."""
    return kept_in([{**market, "value_nanousd": value} for value in values_nanousd], market)


def _best(valuation: Valuation) -> tuple[Ints, Floats]:
    """Return the best menu: caps in tokens and prices."""
    best = best_tiers(valuation, TIERS)
    few = next(menu for menu in best if menu.profit >= ENOUGH * best[-1].profit)
    menu = publish(valuation, few.caps)
    limits = [valuation.steps.cap_tokens(cap) for cap in menu.caps.tolist()]
    tokens = [np.iinfo(np.int64).max if limit is None else limit for limit in limits]
    return np.array(tokens, dtype=np.int64), menu.prices.astype(np.float64)


def urgency_of(
    seen: Statistics, rows: Ints, leaving: LeavingTests, random: np.random.Generator, sweeps: Sweeps = FULL
) -> tuple[Floats, Floats] | None:
    """Return some customers' urgencies, 1/s, and their shares, from leaving; None where leaving is not read."""
    if leaving.refused is not None:
        return None
    customers = replace(as_timed(seen.customers.only(rows), leaving), choices=None)
    if not customers.waited_s.any():
        return None
    its_rows, _ = rows_of_customers(customers, [], leaving=True)
    mixing = estimate_mixing(its_rows, joined([]), draws=1, random=random, sweeps=sweeps)
    rates = mixing.urgency_per_s if leaving.otherwise is None else leaving.otherwise.own(mixing.urgency_per_s)
    return rates, mixing.share
