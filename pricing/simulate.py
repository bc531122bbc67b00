"""Customers who choose, wait, leave and resume by themselves: a witness of what the mechanism says it earns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.market import Market
from pricing.market.worth import Valuation, remaining, valuation_of

NEVER = np.iinfo(np.int64).max
"""The length of an answer that never finishes."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What simulated customers did.

    Attributes:
        shares: share of conversations that took each tier, in the menu's order. Shape (k,).
        profit: average profit of a conversation offered, nano-units.
        error: standard error of that average.
        tokens: average tokens served for each conversation offered.
        purchases: average number of times a tier was bought.
    """

    shares: Floats
    profit: float
    error: float
    tokens: float
    purchases: float


@dataclass(frozen=True, slots=True)
class _Offer:
    """A menu as customers see it: caps in tokens, prices in nano-units."""

    caps: Ints
    prices: Floats


def simulate(
    market: Market, menu: Mapping[str, Any], *, conversations: int, random: np.random.Generator, resuming: bool = False
) -> Simulated:
    """Return what customers of a market do with a menu, conversation by conversation.

    Each has an urgency and knows the length of answers only by its distribution. It takes the tier it likes best, waits
    until its answer is complete, its patience ends or the cap is reached; if it resumes, it may then buy any tier
    again. Patience ends at a time drawn so that it lasts beyond t with probability d(r, t). Where waiting sinks, nobody
    leaves.

    Args:
        market: who buys.
        menu: a ``menu.json``.
        conversations: how many.
        random: where chance comes from.
        resuming: whether a cut answer may be sent back.
    """
    valuation = valuation_of(market)
    end = int(valuation.steps.tokens[-1])
    caps = [tier["conversation_tokens_max"] for tier in menu["tiers"]]
    offer = _Offer(
        np.array([end if cap is None else min(cap, end) for cap in caps], dtype=np.int64),
        np.array([tier["price_nanousd"] for tier in menu["tiers"]], dtype=np.float64),
    )
    types = random.choice(len(valuation.share), conversations, p=valuation.share / valuation.share.sum())
    calls = _Calls(_lengths(valuation, conversations, random), _patience(valuation, types, random))
    taken, profit = np.full(conversations, -1), np.zeros(conversations)
    tokens, purchases = np.zeros(conversations), np.zeros(conversations)
    for row in range(len(valuation.share)):
        policy = _policy(valuation, offer, row, resuming)
        waiting = {0: np.flatnonzero(types == row)}
        while waiting:
            place = min(waiting)
            here = waiting.pop(place)
            choice = policy[place]
            if choice < 0:
                continue
            if place == 0:
                taken[here] = choice
            bought = min(place + int(offer.caps[choice]), end)
            served = _served(valuation, calls, here, place, bought)
            profit[here] += offer.prices[choice] - served * valuation.cost_per_token
            tokens[here] += served
            purchases[here] += 1
            there = calls.still_there(valuation, here, bought)
            if resuming and bought < end and len(there):
                waiting[bought] = np.concatenate((waiting.get(bought, there[:0]), there))
    return Simulated(
        shares=np.array([np.mean(taken == tier) for tier in range(len(offer.caps))]),
        profit=float(profit.mean()),
        error=float(profit.std() / np.sqrt(conversations)),
        tokens=float(tokens.mean()),
        purchases=float(purchases.mean()),
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """How long each answer is, in tokens, and how long each customer waits, in seconds. Shape (conversations,)."""

    lengths: Ints
    patience_s: Floats

    def still_there(self, valuation: Valuation, here: Ints, tokens: int) -> Ints:
        """Return those whose answer is longer than ``tokens`` and who wait for more."""
        moment = valuation.steps.first_token_s + tokens / valuation.steps.tokens_per_s
        return here[(self.lengths[here] > tokens) & (self.patience_s[here] > moment)]


def _lengths(valuation: Valuation, conversations: int, random: np.random.Generator) -> Ints:
    steps = valuation.steps
    place = np.searchsorted(np.cumsum(steps.probability), random.random(conversations), side="right")
    return np.append(steps.tokens, NEVER)[place]


def _patience(valuation: Valuation, types: Ints, random: np.random.Generator) -> Floats:
    """Return times that exceed t with probability d(r, t)."""
    urgency, chance = valuation.urgency_per_s[types], 1.0 - random.random(len(types))
    waits = {
        "exponential": -np.log(chance),
        "hyperbolic": 1.0 / chance - 1.0,
        "linear": 1.0 - chance,
        "sunk_linear": np.full(len(types), np.inf),
    }
    with np.errstate(divide="ignore"):
        times: Floats = np.divide(waits[valuation.delay], urgency)
    return times


def _served(valuation: Valuation, calls: _Calls, here: Ints, place: int, bought: int) -> Floats:
    """Return the tokens that one purchase takes: whole steps, up to the answer's end, the cap, or the customer's."""
    steps = valuation.steps
    tokens = np.concatenate(([0], steps.tokens))
    until = np.searchsorted(steps.tokens, np.minimum(calls.lengths[here], bought), side="right")
    if valuation.stops:
        until = np.minimum(until, np.searchsorted(steps.time_s, calls.patience_s[here], side="right"))
    start = int(np.searchsorted(steps.tokens, place, side="right"))
    served: Floats = (tokens[np.maximum(until, start)] - tokens[start]).astype(np.float64)
    return served


def _policy(valuation: Valuation, offer: _Offer, row: int, resuming: bool) -> dict[int, int]:
    """Return the tier that a type buys at each place it may come to, -1 for none."""
    steps, end = valuation.steps, int(valuation.steps.tokens[-1])
    one = slice(row, row + 1)
    worth = np.concatenate(([0.0], np.cumsum(valuation.gains(one, valuation.left(one))[0])))
    longer = np.concatenate(([1.0], 1.0 - np.cumsum(steps.probability)))
    reached = {0, end}
    coming = [0]
    while coming and resuming:
        place = coming.pop()
        onward = {min(place + int(cap), end) for cap in offer.caps} - reached
        reached |= onward
        coming += onward
    gain, policy = {end: 0.0}, {}
    for place in sorted(reached - {end}, reverse=True):
        here = int(np.searchsorted(steps.tokens, place, side="right"))
        moment = np.array([steps.first_token_s + place / steps.tokens_per_s])
        left = float(remaining(valuation.delay, valuation.urgency_per_s[one], moment)[0, 0]) if place else 1.0
        gain[place], policy[place] = 0.0, -1
        for tier, (cap, price) in enumerate(zip(offer.caps.tolist(), offer.prices.tolist(), strict=True)):
            bought = min(place + cap, end)
            there = int(np.searchsorted(steps.tokens, bought, side="right"))
            offered = (
                worth[there] - worth[here] - price * longer[here] * left + (gain.get(bought, 0.0) if resuming else 0.0)
            )
            if offered > gain[place] or (offered >= gain[place] and place == 0):
                gain[place], policy[place] = float(offered), tier
    return policy
