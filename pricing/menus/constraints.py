"""Menus under terms: a tier's highest price, its customers' least surplus, how many may be worse off than today."""

from __future__ import annotations

import math

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, worth_at, worth_error
from pricing.mechanism.lasting import margins
from pricing.mechanism.offers import Offer, choices, chosen, cleaned, offer_of
from pricing.mechanism.rounding import Published, publish
from pricing.mechanism.tiers import best_tiers
from pricing.menus.aims import Aim
from pricing.menus.menu import NotAMenu
from pricing.menus.objectives import Term, WorseOff
from pricing.menus.request import Wishes


def terms_aim(valuation: Valuation, wished: Wishes, most: int) -> Aim:
    """Return the objective of a menu under terms: profit, plus customers' surplus by its weight.

    The search starts with the mechanism's menus, at their own prices and at the highest prices that the terms allow,
    and with today's menu, under which nobody is worse off.

    Args:
        valuation: n types, m steps; holds the weight of surplus, and whether every type has to be served.
        wished: the terms.
        most: the most tiers of the menu.
    """
    today = None if wished.worse_off is None else _today(valuation, wished.worse_off)
    starts = [] if today is None else [today]
    for menu in best_tiers(valuation, most):
        if menu.caps.any():
            published = publish(valuation, menu.caps)
            starts += [offer_of(published), highest(valuation, published, wished)]

    def score(market: Valuation, offer: Offer) -> float:
        published = chosen(market, offer)
        if not is_met(market, published, wished):
            return -math.inf
        return aimed(market, published)

    return Aim(score, tuple(start for start in starts if len(start.caps)))


def highest(valuation: Valuation, published: Published, wished: Wishes) -> Offer:
    """Return the caps of a menu at the highest prices, under terms, at which every type keeps its tier.

    Every condition says that a price is at most a number, or at most another price plus a number. The conditions are
    own choice against the next smaller tier, for the tier's most urgent type; own choice against the next larger tier,
    for its most patient type; the terms; and, where nobody may be worse off, that every type keeps at least what it
    keeps today. One pass up and down per tier, lowering each price that is too high, reaches the highest prices that
    meet all conditions.

    Args:
        valuation: n types, m steps.
        published: k tiers, each taken by a run of types.
        wished: the terms.
    """
    worth, tiers = published.worth, len(published.caps)
    takers = [np.flatnonzero(published.takes == place) for place in range(tiers)]
    most = [float(worth[types[-1], place]) for place, types in enumerate(takers)]
    for term in wished.terms:
        place = term.tier - 1
        if place < tiers:
            most[place] -= term.surplus_nanousd_min or 0
            if term.price_nanousd_max is not None:
                most[place] = min(most[place], term.price_nanousd_max)
    if wished.worse_off is not None and wished.worse_off.share_max == 0:
        surplus_today = kept_today(valuation, wished.worse_off)
        most = [
            min(most[tier], float((worth[types, tier] - surplus_today[types]).min()))
            for tier, types in enumerate(takers)
        ]
    most = [math.floor(price) for price in most]
    for _ in range(tiers):
        for place in range(1, tiers):
            last = takers[place][-1]
            most[place] = min(most[place], most[place - 1] + math.floor(worth[last, place] - worth[last, place - 1]))
        for place in range(tiers - 1, 0, -1):
            first = takers[place - 1][0]
            most[place - 1] = min(
                most[place - 1], most[place] - math.ceil(worth[first, place] - worth[first, place - 1])
            )
    return cleaned(published.caps, np.array(most, dtype=np.int64))


def aimed(valuation: Valuation, published: Published) -> float:
    """Return profit plus weighted customers' surplus, nano-units for each conversation offered."""
    profit = float(np.dot(valuation.share, margins(valuation, published)))
    return profit + valuation.surplus_weight * float(np.dot(valuation.share, kept(published)))


def kept(published: Published) -> Floats:
    """Return the surplus of each type, nano-units. Shape (n,)."""
    return published.own(published.worth) - published.paid()


def is_met(valuation: Valuation, published: Published, wished: Wishes) -> bool:
    """Return whether a menu fulfils all wishes, up to the error of a worth."""
    if valuation.everyone and np.any(published.takes < 0):
        return False
    if wished.worse_off is not None:
        share = worse_off(valuation, published, wished.worse_off)
        if share > wished.worse_off.share_max + 1e-12:
            return False
    surplus = kept(published)
    return all(_holds(published, surplus, term) for term in wished.terms)


def _holds(published: Published, surplus: Floats, term: Term) -> bool:
    place = term.tier - 1
    if place >= len(published.caps):
        return False
    if term.price_nanousd_max is not None and published.prices[place] > term.price_nanousd_max:
        return False
    least = term.surplus_nanousd_min
    return least is None or float(surplus[published.takes == place].min()) >= least - 2 * published.error


def worse_off(valuation: Valuation, published: Published, condition: WorseOff) -> float:
    """Return the share of conversations offered whose customers keep less than they do with today's menu.

    A type counts where it loses more than one nano-unit and the error of its worth.
    """
    surplus_today = kept_today(valuation, condition)
    return float(valuation.share[kept(published) < surplus_today - 4 * published.error - 1].sum())


def kept_today(valuation: Valuation, condition: WorseOff) -> Floats:
    """Return the surplus of each type with today's menu, nano-units. Shape (n,)."""
    today = _today(valuation, condition)
    worth = worth_at(valuation, today.caps)
    takes = choices(worth, today.prices, worth_error(valuation, len(today.caps)))
    gains = np.concatenate((worth - today.prices, np.zeros((len(worth), 1))), axis=1)
    surplus: Floats = np.maximum(np.take_along_axis(gains, takes[:, None], axis=1)[:, 0], 0.0)
    return surplus


def _today(valuation: Valuation, condition: WorseOff) -> Offer:
    steps = valuation.steps
    caps: Ints = np.array(
        [
            len(steps.tokens) if cap is None else int(np.searchsorted(steps.tokens, cap, side="right"))
            for cap in condition.caps_tokens
        ],
        dtype=np.int64,
    )
    return cleaned(np.maximum(caps, 1), np.maximum(np.array(condition.prices_nanousd, dtype=np.int64), 1))


def unmet(tiers: int) -> NotAMenu:
    """Return the error for terms that none of the menus tried fulfils."""
    return NotAMenu(f"No menu of at most {tiers} tiers was found that fulfils the terms and earns anything.", "terms")
