"""Customers of undue weight: programs, and the few customers who hold a large part of the conversations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pricing.estimate.observations.conversations import BINS_A_DOUBLING
from pricing.estimate.observations.spread import OwnLengths, bins_in, bins_of
from pricing.estimate.observations.statistics import Customers, LengthCounts, Statistics
from pricing.market.answers import Ints

MACHINE_LEAST = 50
"""A customer with at least this many answers, all equally long to within a fifth, is a program that repeats a request.
A person's answers differ by more: fifty lognormal answers with a sigma of 0.2 share a bin once in 10^20."""

REGULAR_TIMES, REGULAR = 20, 0.95
"""A customer with at least ``REGULAR_TIMES`` times the median number of conversations is a program if the share
``REGULAR`` of its answers lies within a doubling of length: for lognormal answers, a sigma below 0.18."""

HELD, HOLDERS = 1 / 3, 0.05
"""Where at most the share ``HOLDERS`` of the customers have the share ``HELD`` of the conversations, these customers
dominate the estimate."""

ALIKE = 0.5
"""A customer with at least this share of the conversations of the smallest holder is a holder too."""

MACHINES = "customers_like_programs"
HOLDING = "customers_holding_most"


def without_machines(seen: Statistics) -> Statistics:
    """Return the statistics without customers whose answers are all about equally long; ``set_aside`` counts them.

    A health check that requests one token every minute has more conversations than all other customers together and
    never waits or leaves: it would count as the most patient customer and as most of the market.
    """
    if seen.own is None:
        return seen
    count = len(seen.customers.conversations)
    answers_in_bin = seen.own.observed + seen.own.censored
    answers = np.bincount(seen.own.customer, answers_in_bin, count)
    capped = np.bincount(seen.own.customer, seen.own.censored, count)
    candidates = np.flatnonzero((answers >= MACHINE_LEAST) & (capped < answers / 2))
    own, answers = seen.own.only(candidates, count), answers[candidates]
    by_bin = np.zeros((len(candidates), bins_in(seen.own) + BINS_A_DOUBLING))
    np.add.at(by_bin, (own.customer, own.bin), own.observed + own.censored)
    reached = np.cumsum(by_bin, axis=1)
    within = (reached[:, BINS_A_DOUBLING:] - reached[:, :-BINS_A_DOUBLING]).max(axis=1)
    within = np.maximum(within, reached[:, BINS_A_DOUBLING - 1])
    conversations = seen.customers.conversations
    is_frequent = conversations[candidates] >= REGULAR_TIMES * np.median(conversations)
    is_uniform = (by_bin.max(axis=1) == answers) | (is_frequent & (within >= REGULAR * answers))
    machines = candidates[is_uniform]
    return _set_aside(seen, machines, MACHINES) if len(machines) else seen


def _set_aside(observed: Statistics, rows: Ints, reason: str) -> Statistics:
    """Return the statistics without some customers, and without their answers where lengths by customer are known."""
    count = len(observed.customers.conversations)
    is_excluded = np.zeros(count, dtype=bool)
    is_excluded[rows] = True
    retained = np.flatnonzero(~is_excluded)
    lengths, own = observed.lengths, None
    if observed.own is not None:
        own_lengths = observed.own
        lengths = tuple(
            _without(tier, own_lengths.where(is_excluded[own_lengths.customer] & (own_lengths.tier == index)))
            for index, tier in enumerate(lengths)
        )
        own = _of_tiers(own_lengths.only(retained, count), [bool(len(tier.tokens)) for tier in lengths])
    return replace(
        observed,
        lengths=tuple(tier for tier in lengths if len(tier.tokens)),
        customers=observed.customers.only(retained),
        own=own,
        set_aside=dict(observed.set_aside) | {reason: len(rows)},
    )


def _without(tier: LengthCounts, own: OwnLengths) -> LengthCounts:
    """Return a tier's counts without some conversations; within each bin, the most frequent lengths are reduced first."""
    observed, censored, bins = tier.observed.copy(), tier.censored.copy(), bins_of(np.maximum(tier.tokens, 1))
    for counts, removed in ((observed, own.observed), (censored, own.censored)):
        for place in np.unique(own.bin).tolist():
            to_remove = int(removed[own.bin == place].sum())
            inside = np.flatnonzero(bins == place)
            for index in inside[np.argsort(-counts[inside], kind="stable")].tolist():
                taken = min(to_remove, int(counts[index]))
                counts[index] -= taken
                to_remove -= taken
    has_any = observed + censored > 0
    return replace(tier, tokens=tier.tokens[has_any], observed=observed[has_any], censored=censored[has_any])


def _of_tiers(own: OwnLengths, has_lengths: list[bool]) -> OwnLengths:
    """Return the lengths by customer, with the tiers that still have lengths renumbered."""
    place: Ints = np.cumsum(has_lengths) - 1
    return replace(own, tier=place[own.tier])


def holders_of(customers: Customers) -> tuple[Ints, Ints] | None:
    """Return the rows of the few customers with a third or more of the conversations, and of all others.

    None if no few customers hold as much.
    """
    order = np.argsort(-customers.conversations, kind="stable")
    reached = np.cumsum(customers.conversations[order])
    holders = int(np.searchsorted(reached, HELD * reached[-1])) + 1
    if holders > HOLDERS * len(order):
        return None
    holds = customers.conversations >= ALIKE * customers.conversations[order[holders - 1]]
    return np.flatnonzero(holds), np.flatnonzero(~holds)


def without_holders(seen: Statistics) -> Statistics:
    """Return the statistics without the few customers with a third or more of the conversations; ``set_aside`` counts them."""
    split = holders_of(seen.customers)
    return seen if split is None else _set_aside(seen, split[0], HOLDING)


def of_holders(customers: Customers, parted: tuple[Ints, Ints], kept: tuple[float, float] | None) -> str:
    """Return a sentence on the holders' share of conversations and their effect on the menu.

    Args:
        customers: all customers.
        parted: rows of the holders, and of the others.
        kept: the share of profit that the menu for all keeps among the others, and that the others' menu keeps among
            all; None where unknown.
    """
    holders, others = parted
    held = float(customers.conversations[holders].sum()) / float(customers.conversations.sum())
    rates = [
        float(customers.disconnects[rows].sum()) / max(1e-9, float(customers.waited_s[rows].sum()))
        for rows in (holders, others)
    ]
    effect = ""
    if kept is not None:
        effect = (
            f" Among the others, this one keeps {kept[0]:.0%} of the profit of a menu made for them; among all, that menu keeps "
            f"{kept[1]:.0%} of the profit of this one."
        )
    is_single = len(holders) == 1
    return (
        f"{len(holders):,} of {len(holders) + len(others):,} customers {'holds' if is_single else 'hold'} {held:.0%} "
        f"of the conversations, and {'its' if is_single else 'their'} weight in the menu is as large: "
        f"{'it leaves' if is_single else 'they leave'} {rates[0]:.3g} times a second on average, the others "
        f"{rates[1]:.3g}.{effect} Estimate without {'it' if is_single else 'them'} (--without-holders) if the menu "
        "is for the others."
    )
