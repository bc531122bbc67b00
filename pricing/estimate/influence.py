"""Who weighs how much: programs among the customers, and the few who hold a large part of the conversations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pricing.estimate.observations.conversations import BINS_A_DOUBLING
from pricing.estimate.observations.spread import OwnLengths, bins_in, bins_of
from pricing.estimate.observations.statistics import Customers, LengthCounts, Statistics
from pricing.market.answers import Ints

MACHINE_LEAST = 50
"""Of so many answers, or more, one customer has none of another length, to within a fifth: then a program asks, and always
the same. A person's answers differ by more; of lognormal ones with a sigma of 0.2 fifty in one bin are one in 10^20."""

REGULAR_TIMES, REGULAR = 20, 0.95
"""Of so many times the usual conversations, or more, it need only be so many of the answers, within a doubling of length:
of lognormal answers that is a sigma below 0.18."""

HELD, HOLDERS = 1 / 3, 0.05
"""Where at most so small a share of customers holds so large a share of conversations, an estimate is about them."""

ALIKE = 0.5
"""Who has so large a share of what the least of these few has is one of them."""

MACHINES = "customers_like_programs"
HOLDING = "customers_holding_most"


def without_machines(seen: Statistics) -> Statistics:
    """Return the statistics without customers all of whose answers are of about one length, which are counted.

    A health check that asks for one token every minute has more conversations than all others together, waits for none
    and leaves none: left in, it is the most patient customer and most of the market.
    """
    if seen.own is None:
        return seen
    count = len(seen.customers.conversations)
    all_of = seen.own.observed + seen.own.censored
    answers = np.bincount(seen.own.customer, all_of, count)
    capped = np.bincount(seen.own.customer, seen.own.censored, count)
    by_bin = np.zeros((count, bins_in(seen.own) + BINS_A_DOUBLING))
    np.add.at(by_bin, (seen.own.customer, seen.own.bin), all_of)
    reached = np.cumsum(by_bin, axis=1)
    within = (reached[:, BINS_A_DOUBLING:] - reached[:, :-BINS_A_DOUBLING]).max(axis=1)
    within = np.maximum(within, reached[:, BINS_A_DOUBLING - 1])
    many = seen.customers.conversations >= REGULAR_TIMES * np.median(seen.customers.conversations)
    alike = (by_bin.max(axis=1) == answers) | (many & (within >= REGULAR * answers))
    machines = (answers >= MACHINE_LEAST) & alike & (capped < answers / 2)
    return _set_aside(seen, np.flatnonzero(machines), MACHINES) if machines.any() else seen


def _set_aside(seen: Statistics, rows: Ints, reason: str) -> Statistics:
    """Return the statistics without some customers, and without their answers where it is known which are theirs."""
    count = len(seen.customers.conversations)
    gone = np.zeros(count, dtype=bool)
    gone[rows] = True
    kept = np.flatnonzero(~gone)
    lengths, own = seen.lengths, None
    if seen.own is not None:
        of = seen.own
        lengths = tuple(
            _without(one, of.where(gone[of.customer] & (of.tier == place))) for place, one in enumerate(lengths)
        )
        own = _of_tiers(of.only(kept, count), [bool(len(one.tokens)) for one in lengths])
    return replace(
        seen,
        lengths=tuple(one for one in lengths if len(one.tokens)),
        customers=seen.customers.only(kept),
        own=own,
        set_aside=dict(seen.set_aside) | {reason: len(rows)},
    )


def _without(tier: LengthCounts, own: OwnLengths) -> LengthCounts:
    """Return a tier's counts without some conversations; of a bin they are taken from the lengths that most have."""
    observed, censored, bins = tier.observed.copy(), tier.censored.copy(), bins_of(np.maximum(tier.tokens, 1))
    for counts, gone in ((observed, own.observed), (censored, own.censored)):
        for place in np.unique(own.bin).tolist():
            remaining = int(gone[own.bin == place].sum())
            inside = np.flatnonzero(bins == place)
            for at in inside[np.argsort(-counts[inside], kind="stable")].tolist():
                taken = min(remaining, int(counts[at]))
                counts[at] -= taken
                remaining -= taken
    there = observed + censored > 0
    return replace(tier, tokens=tier.tokens[there], observed=observed[there], censored=censored[there])


def _of_tiers(own: OwnLengths, kept: list[bool]) -> OwnLengths:
    """Return the lengths by customer with tiers numbered anew that still have any."""
    place: Ints = np.cumsum(kept) - 1
    return replace(own, tier=place[own.tier])


def holders_of(customers: Customers) -> tuple[Ints, Ints] | None:
    """Return the rows of the few who hold a third of the conversations or more, and those of all others; None if nobody does."""
    order = np.argsort(-customers.conversations, kind="stable")
    reached = np.cumsum(customers.conversations[order])
    holders = int(np.searchsorted(reached, HELD * reached[-1])) + 1
    if holders > HOLDERS * len(order):
        return None
    holds = customers.conversations >= ALIKE * customers.conversations[order[holders - 1]]
    return np.flatnonzero(holds), np.flatnonzero(~holds)


def without_holders(seen: Statistics) -> Statistics:
    """Return the statistics without the few who hold a third of the conversations or more, who are counted."""
    found = holders_of(seen.customers)
    return seen if found is None else _set_aside(seen, found[0], HOLDING)


def of_holders(customers: Customers, parted: tuple[Ints, Ints], kept: tuple[float, float] | None) -> str:
    """Return who holds so much of the conversations, and what that does to the menu, in a sentence.

    Args:
        customers: all of them.
        parted: rows of the few, and of the others.
        kept: what the menu made for all keeps among the others, and the other way round, as shares of the most there.
    """
    them, others = parted
    held = float(customers.conversations[them].sum()) / float(customers.conversations.sum())
    rates = [
        float(customers.disconnects[rows].sum()) / max(1e-9, float(customers.waited_s[rows].sum()))
        for rows in (them, others)
    ]
    effect = ""
    if kept is not None:
        effect = (
            f" Of what a menu for the others earns among them this one keeps {kept[0]:.0%}, and of what this one earns among "
            f"all that one keeps {kept[1]:.0%}."
        )
    one = len(them) == 1
    return (
        f"{len(them):,} of {len(them) + len(others):,} customers {'holds' if one else 'hold'} {held:.0%} of the conversations, and "
        f"the menu is made for {'it' if one else 'them'} as much: {'it leaves' if one else 'they leave'} {rates[0]:.3g} times a "
        f"second on average, the others {rates[1]:.3g}.{effect} Estimate without {'it' if one else 'them'} (--without-holders) "
        "where the menu is for the others."
    )
