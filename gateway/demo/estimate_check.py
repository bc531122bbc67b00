"""Compares what the demo's gateway learnt with the truth: the market, and the profit before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from gateway.demo.expectations import Conversations
from gateway.demo.simulated_customers import Person
from gateway.simulator.model_server import Law
from pricing.market.market import ExponentialLength, Market
from pricing.menus.menu import Menu
from pricing.money import written
from pricing.report.menu_table import columns


def learnt_lines(estimated: Mapping[str, Any], market: Market, law: Law, speed: float) -> list[str]:
    """Return the estimated market beside the true market, in the model's own time.

    Args:
        estimated: ``market.json`` with its intervals, in the gateway's time.
        market: the truth.
        law: the pace that customers observed.
        speed: how many of the model's seconds pass in one second of the gateway's.
    """
    assert isinstance(market.answer_length, ExponentialLength)
    intervals = estimated["intervals"]
    rows = [["", "estimated", "95 % interval", "true"]]
    low, high = (bound / speed for bound in intervals["tokens_per_s"])
    pace = estimated["tokens_per_s"] / speed
    rows.append(["tokens a second", f"{pace:.1f}", f"{low:.1f} to {high:.1f}", f"{law.tokens_per_s:.1f}"])
    mean = market.answer_length.mean_tokens
    for tokens in (round(mean / 2), round(mean), round(2 * mean)):
        estimate = _at(intervals["answer_length"]["tokens"], estimated["answer_length"]["survival"], tokens)
        interval = [
            _at(intervals["answer_length"]["tokens"], intervals["answer_length"][end], tokens) for end in SURVIVAL_ENDS
        ]
        rows.append(
            [f"answers longer than {tokens} tokens", *_shares(estimate, interval), f"{math.exp(-tokens / mean):.1%}"]
        )
    urgency = intervals["urgency"]
    reached = 0.0
    for (slow, share), (fast, _) in pairwise(zip(market.urgency_per_s, market.share, strict=True)):
        reached += share
        boundary = math.sqrt(slow * fast)
        estimate, *interval = (
            _at(urgency["urgency_per_s"], urgency[name], boundary * speed, 0.0)
            for name in ("cumulative_share", "cumulative_share_low", "cumulative_share_high")
        )
        rows.append(
            [f"conversations less urgent than {boundary:.3g}/s", *_shares(estimate, interval), f"{reached:.1%}"]
        )
    sources = ", ".join(source.replace("_", " ") for source in estimated["estimate"]["sources"])
    return [f"What was learnt, from {sources}:", *columns(rows)]


SURVIVAL_ENDS = ("survival_low", "survival_high")


def profit_lines(
    menus: Sequence[Menu],
    observed: Sequence[Conversations],
    people: Sequence[Person],
    law: Law,
    best: Mapping[str, Any],
) -> list[str]:
    """Return the profit of each menu, in the ledger and by the true market, and the best profit of as many tiers."""
    rows = [["profit of a conversation offered", "in the ledger", "± 2 s.e.", "by the true market"]]
    for name, menu, conversations in zip(("before", "after"), menus, observed, strict=True):
        expected, served = earns(menu, people, law)
        mean = conversations.charge_nanousd / max(1, conversations.total)
        prices = {tier.name: tier.price_nanousd for tier in menu.tiers}
        squares = sum(count * (prices[tier] - mean) ** 2 for tier, count in conversations.by_tier.items())
        error = served * math.sqrt(squares) / max(1, conversations.total)
        amounts = (served * mean, 2 * error, expected)
        rows.append([name, *(written(round(amount), menu.currency) for amount in amounts)])
    best_profit = best["totals"]["profit_nanousd"]
    rows.append(
        ["best of as many tiers, had the market been known", "", "", written(round(best_profit), menus[0].currency)]
    )
    shares = [earns(menu, people, law)[0] / best_profit for menu in menus]
    return [
        *columns(rows),
        f"The menu earned {shares[0]:.0%} of what could be earned before, and {shares[1]:.0%} after.",
    ]


def earns(menu: Menu, people: Sequence[Person], law: Law) -> tuple[float, float]:
    """Return a menu's profit per conversation offered, where serving costs nothing, and the share that buys."""
    rates = [person.conversations_per_s for person in people]
    chosen = [person.choose(menu.tiers, law) for person in people]
    paid = sum(rate * tier.price_nanousd for rate, tier in zip(rates, chosen, strict=True) if tier is not None)
    buying = sum(rate for rate, tier in zip(rates, chosen, strict=True) if tier is not None)
    return paid / sum(rates), buying / sum(rates)


def _at(step_starts: Sequence[float], values: Sequence[float], position: float, before: float = 1.0) -> float:
    """Return a step function's value at a position, ``before`` left of the first step."""
    value = before
    for step_start, step_value in zip(step_starts, values, strict=True):
        if step_start > position:
            break
        value = step_value
    return value


def _shares(estimate: float, interval: Sequence[float]) -> list[str]:
    return [f"{estimate:.1%}", f"{interval[0]:.1%} to {interval[1]:.1%}"]
