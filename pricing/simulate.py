"""Simulated customers who choose, wait, leave and resume: an independent check of the mechanism's profit."""

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
    """The behaviour of simulated customers.

    Attributes:
        shares: share of conversations that took each tier, in the menu's order. Shape (k,).
        profit: average profit of a conversation offered, nano-units.
        error: standard error of the average profit, nano-units.
        tokens: average tokens served for each conversation offered.
        purchases: average number of purchases for each conversation offered.
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
    """Return the simulated behaviour of a market's customers under a menu, conversation by conversation.

    Each customer has an urgency and knows only the distribution of the length of answers. The customer takes the tier
    with the largest gain, and waits until the answer is complete, patience ends or the cap is reached; a customer who
    resumes may then buy any tier again. Patience ends at a random time: it lasts beyond t with probability d(r, t).
    Where waiting is sunk, no customer leaves.

    Args:
        market: who buys.
        menu: a ``menu.json``.
        conversations: the number of conversations to simulate.
        random: the source of randomness.
        resuming: whether customers may send cut answers back.
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
    tiers_taken, profit = np.full(conversations, -1), np.zeros(conversations)
    tokens, purchases = np.zeros(conversations), np.zeros(conversations)
    for row in range(len(valuation.share)):
        policy = _policy(valuation, offer, row, resuming)
        waiting = {0: np.flatnonzero(types == row)}
        while waiting:
            place = min(waiting)
            waiting_calls = waiting.pop(place)
            choice = policy[place]
            if choice < 0:
                continue
            if place == 0:
                tiers_taken[waiting_calls] = choice
            tokens_bought = min(place + int(offer.caps[choice]), end)
            served = _served(valuation, calls, waiting_calls, place, tokens_bought)
            profit[waiting_calls] += offer.prices[choice] - served * valuation.cost_per_token
            tokens[waiting_calls] += served
            purchases[waiting_calls] += 1
            remaining_calls = calls.still_there(valuation, waiting_calls, tokens_bought)
            if resuming and tokens_bought < end and len(remaining_calls):
                waiting[tokens_bought] = np.concatenate(
                    (waiting.get(tokens_bought, remaining_calls[:0]), remaining_calls)
                )
    return Simulated(
        shares=np.array([np.mean(tiers_taken == tier) for tier in range(len(offer.caps))]),
        profit=float(profit.mean()),
        error=float(profit.std() / np.sqrt(conversations)),
        tokens=float(tokens.mean()),
        purchases=float(purchases.mean()),
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """The length of each answer, in tokens, and the patience of each customer, in seconds. Shapes (conversations,)."""

    lengths: Ints
    patience_s: Floats

    def still_there(self, valuation: Valuation, waiting: Ints, tokens: int) -> Ints:
        """Return the calls whose answer is longer than ``tokens`` and whose customer still waits."""
        arrival_s = valuation.steps.first_token_s + tokens / valuation.steps.tokens_per_s
        return waiting[(self.lengths[waiting] > tokens) & (self.patience_s[waiting] > arrival_s)]


def _lengths(valuation: Valuation, conversations: int, random: np.random.Generator) -> Ints:
    steps = valuation.steps
    ending_step = np.searchsorted(np.cumsum(steps.probability), random.random(conversations), side="right")
    return np.append(steps.tokens, NEVER)[ending_step]


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


def _served(valuation: Valuation, calls: _Calls, waiting_calls: Ints, place: int, tokens_bought: int) -> Floats:
    """Return the tokens that one purchase takes: whole steps, until the answer, the cap or the patience ends."""
    steps = valuation.steps
    tokens = np.concatenate(([0], steps.tokens))
    last_step = np.searchsorted(steps.tokens, np.minimum(calls.lengths[waiting_calls], tokens_bought), side="right")
    if valuation.stops:
        last_step = np.minimum(last_step, np.searchsorted(steps.time_s, calls.patience_s[waiting_calls], side="right"))
    start = int(np.searchsorted(steps.tokens, place, side="right"))
    served: Floats = (tokens[np.maximum(last_step, start)] - tokens[start]).astype(np.float64)
    return served


def _policy(valuation: Valuation, offer: _Offer, row: int, resuming: bool) -> dict[int, int]:
    """Return the tier that a type buys at each place that it may reach, -1 for none, by the place in tokens."""
    steps, end = valuation.steps, int(valuation.steps.tokens[-1])
    this_type = slice(row, row + 1)
    worth = np.concatenate(([0.0], np.cumsum(valuation.gains(this_type, valuation.left(this_type))[0])))
    longer = np.concatenate(([1.0], 1.0 - np.cumsum(steps.probability)))
    places = {0, end}
    frontier = [0]
    while frontier and resuming:
        place = frontier.pop()
        onward = {min(place + int(cap), end) for cap in offer.caps} - places
        places |= onward
        frontier += onward
    gain, policy = {end: 0.0}, {}
    for place in sorted(places - {end}, reverse=True):
        step = int(np.searchsorted(steps.tokens, place, side="right"))
        moment = np.array([steps.first_token_s + place / steps.tokens_per_s])
        patience = float(remaining(valuation.delay, valuation.urgency_per_s[this_type], moment)[0, 0]) if place else 1.0
        gain[place], policy[place] = 0.0, -1
        for tier, (cap, price) in enumerate(zip(offer.caps.tolist(), offer.prices.tolist(), strict=True)):
            tokens_bought = min(place + cap, end)
            step_after = int(np.searchsorted(steps.tokens, tokens_bought, side="right"))
            expected_gain = (
                worth[step_after]
                - worth[step]
                - price * longer[step] * patience
                + (gain.get(tokens_bought, 0.0) if resuming else 0.0)
            )
            if expected_gain > gain[place] or (expected_gain >= gain[place] and place == 0):
                gain[place], policy[place] = float(expected_gain), tier
    return policy
