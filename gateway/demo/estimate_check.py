"""What the demo's gateway learnt, beside the truth: the market, and profit before and after."""

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
    """Return the estimated market beside the true one, in the model's own time.

    Args:
        estimated: ``market.json`` with its intervals, in the gateway's time.
        market: the truth.
        law: the pace that customers found.
        speed: of the model's seconds in one of the gateway's.
    """
    assert isinstance(market.answer_length, ExponentialLength)
    beside = estimated["intervals"]
    rows = [["", "estimated", "95 % interval", "true"]]
    low, high = (one / speed for one in beside["tokens_per_s"])
    pace = estimated["tokens_per_s"] / speed
    rows.append(["tokens a second", f"{pace:.1f}", f"{low:.1f} to {high:.1f}", f"{law.tokens_per_s:.1f}"])
    mean = market.answer_length.mean_tokens
    for tokens in (round(mean / 2), round(mean), round(2 * mean)):
        found = _at(beside["answer_length"]["tokens"], estimated["answer_length"]["survival"], tokens)
        ends = [_at(beside["answer_length"]["tokens"], beside["answer_length"][end], tokens) for end in SURVIVAL_ENDS]
        rows.append([f"answers longer than {tokens} tokens", *_shares(found, ends), f"{math.exp(-tokens / mean):.1%}"])
    urgency = beside["urgency"]
    reached = 0.0
    for (slow, share), (fast, _) in pairwise(zip(market.urgency_per_s, market.share, strict=True)):
        reached += share
        at = math.sqrt(slow * fast)
        found, *ends = (
            _at(urgency["urgency_per_s"], urgency[name], at * speed, 0.0)
            for name in ("cumulative_share", "cumulative_share_low", "cumulative_share_high")
        )
        rows.append([f"conversations less urgent than {at:.3g}/s", *_shares(found, ends), f"{reached:.1%}"])
    sources = ", ".join(source.replace("_", " ") for source in estimated["estimate"]["sources"])
    return [f"What was learnt, from {sources}:", *columns(rows)]


SURVIVAL_ENDS = ("survival_low", "survival_high")


def profit_lines(
    menus: Sequence[Menu], seen: Sequence[Conversations], people: Sequence[Person], law: Law, best: Mapping[str, Any]
) -> list[str]:
    """Return what each menu earns: in the ledger, and by the true market; beside the best that three tiers can."""
    rows = [["profit of a conversation offered", "in the ledger", "± 2 s.e.", "by the true market"]]
    for name, menu, under in zip(("before", "after"), menus, seen, strict=True):
        expected, served = earns(menu, people, law)
        mean = under.charge_nanousd / max(1, under.total)
        prices = {tier.name: tier.price_nanousd for tier in menu.tiers}
        squares = sum(count * (prices[tier] - mean) ** 2 for tier, count in under.by_tier.items())
        error = served * math.sqrt(squares) / max(1, under.total)
        amounts = (served * mean, 2 * error, expected)
        rows.append([name, *(written(round(amount), menu.currency) for amount in amounts)])
    most = best["totals"]["profit_nanousd"]
    rows.append(["best of as many tiers, had the market been known", "", "", written(round(most), menus[0].currency)])
    shares = [earns(menu, people, law)[0] / most for menu in menus]
    return [
        *columns(rows),
        f"The menu earned {shares[0]:.0%} of what could be earned before, and {shares[1]:.0%} after.",
    ]


def earns(menu: Menu, people: Sequence[Person], law: Law) -> tuple[float, float]:
    """Return what a menu earns of a conversation offered, serving costing nothing, and the share that buys."""
    rates = [person.conversations_per_s for person in people]
    taken = [person.choose(menu.tiers, law) for person in people]
    paid = sum(rate * tier.price_nanousd for rate, tier in zip(rates, taken, strict=True) if tier is not None)
    buying = sum(rate for rate, tier in zip(rates, taken, strict=True) if tier is not None)
    return paid / sum(rates), buying / sum(rates)


def _at(places: Sequence[float], values: Sequence[float], at: float, before: float = 1.0) -> float:
    """Return a step function's value at a place, ``before`` left of the first step."""
    value = before
    for place, step in zip(places, values, strict=True):
        if place > at:
            break
        value = step
    return value


def _shares(found: float, ends: Sequence[float]) -> list[str]:
    return [f"{found:.1%}", f"{ends[0]:.1%} to {ends[1]:.1%}"]
