"""What an answer is worth, as far as choices of tiers tell it, and whether that is what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from pricing.answers import Floats, Ints
from pricing.estimate.choices import Answers
from pricing.estimate.mixing import Mixing
from pricing.estimate.statistics import Customers, Offer

MULTIPLES: Floats = np.geomspace(1 / 4, 4, 71)
"""The values that are tried, as multiples of the one that was said: neighbours differ by 4 %."""

LENGTHS, URGENCIES = 5, 60
"""Over how many draws of lengths and pace, and of the distribution of urgency, a likelihood is averaged."""

LAPSES = 0.01
"""How many choose by something else: what keeps a few odd choices from ruling out a value."""

DROP = 1.92
"""Values whose log likelihood is lower by no more than this are in the interval: half of the 95 % point of chi-squared."""

CONTRADICTED = 6.0
"""The value that was said is contradicted where its log likelihood is lower by more, by chance once in two thousand ..."""

NEAR = 1.1
"""... and that of all values within this factor of it as well: thresholds next to many customers move by lengths, too."""

WIDE = 1.5
"""An interval whose ends are further apart, as a ratio, leaves the value open."""

CUSTOMERS_MOST = 1_000
"""Customers whose choices for their account are read; more of them tell hardly more, since lengths are uncertain as well."""


@dataclass(frozen=True, slots=True)
class ValueTold:
    """The value of an answer that choices tell, by their likelihood given what leaving alone tells of urgency.

    Attributes:
        best_nanousd: the value that makes them most likely; of a range that does, its middle in logarithms.
        low_nanousd, high_nanousd: its 95 % interval; an end of the values tried stands for no end.
        is_bounded: whether both ends lie within the values tried.
        below_best: by how much the log likelihood of what was said, or of any value near it, lies below the best one's.
    """

    best_nanousd: float
    low_nanousd: float
    high_nanousd: float
    is_bounded: bool
    below_best: float

    @property
    def contradicts(self) -> bool:
        """Return whether the choices rule out what was said."""
        return self.below_best > CONTRADICTED

    @property
    def between(self) -> str:
        """Return the interval in words."""
        return f"{self.low_nanousd:,.0f} to {self.high_nanousd:,.0f} nano-units"

    def contradiction(self, said_nanousd: float) -> str:
        """Return why nothing is estimated with the value that was said, and what may be said in its place."""
        return (
            f"Customers chose as if an answer were worth {self.best_nanousd:,.0f} ({self.between}), not "
            f"{said_nanousd:,.0f}: given how soon they leave, their tiers rule that out. Prices made for it would lose "
            "buyers or give answers away; say a value that their choices bear."
        )


def note_of(told: ValueTold | None, said_nanousd: float) -> tuple[str, ...]:
    """Return what choices tell of the value, in a sentence."""
    if told is None:
        return ("Nobody's choice tells what an answer is worth: the value is as it was said, right or wrong.",)
    if told.high_nanousd > WIDE * told.low_nanousd:
        return (
            f"Choices leave open what an answer is worth: {told.between} are about as likely. Made for more than it "
            "is worth, a menu loses buyers; the least of these loses none.",
        )
    is_inside = told.low_nanousd <= said_nanousd <= told.high_nanousd
    beside = "lies among them" if is_inside else "does not"
    return (f"Choices tell that an answer is worth {told.between}; {said_nanousd:,.0f}, as was said, {beside}.",)


def value_told(
    lengths: Sequence[Answers],
    offers: Sequence[Offer],
    customers: Customers,
    leaving: Mixing,
    random: np.random.Generator,
) -> ValueTold | None:
    """Return what choices tell of the value of an answer, None where nobody chose.

    A value moves all thresholds between tiers. The likelihood of what was taken, at each value, is averaged over draws
    of lengths and pace and of the distribution of urgency that leaving alone tells. A choice of a conversation counts
    as one for each customer, not for each conversation: customers choose alike every time.

    Who refused and was never seen to wait says nothing: how urgent such customers are, leaving does not tell.

    Identifying assumptions: customers leave at the rate at which they discount, and choose as in ``choices``, all but
    ``LAPSES`` of them. Not identified: which of two values that put the same customers into the same tiers.

    Args:
        lengths: draws of answers, with the value that was said.
        offers: menus, with what was taken of each for single conversations.
        customers: with the tier that each took for its account, by offer.
        leaving: the distribution of urgency that leaving alone tells, with draws.
        random: chooses whose choices are read, where there are too many.
    """
    draws = leaving.draws[:URGENCIES]
    by_offer = [_accounts(place, customers, leaving, draws, random) for place in range(len(offers))]
    if all(offer.taken is None for offer in offers) and all(one is None for one in by_offer):
        return None
    each = len(customers.conversations) / max(1, int(customers.conversations.sum()))
    logs = np.stack(
        [
            _log_likelihood(answers, offers, by_offer, leaving.urgency_per_s, draws, each)
            for answers in lengths[:LENGTHS]
        ]
    )
    found = logsumexp(logs, axis=0)
    found -= found.max()
    inside, said = MULTIPLES[found >= -DROP], lengths[0].value_nanousd
    likeliest = MULTIPLES[found >= -0.05]
    return ValueTold(
        best_nanousd=said * float(np.sqrt(likeliest[0] * likeliest[-1])),
        low_nanousd=said * float(inside[0]),
        high_nanousd=said * float(inside[-1]),
        is_bounded=bool(inside[0] > MULTIPLES[0] and inside[-1] < MULTIPLES[-1]),
        below_best=-float(found[np.abs(np.log(MULTIPLES)) <= np.log(NEAR)].max()),
    )


@dataclass(frozen=True, slots=True)
class _Accounts:
    """Customers who took a tier for their account.

    Attributes:
        taken: which, 0 for none. Shape (n,).
        kinds: of each draw of the distribution of urgency, the places on its grid that are not empty.
        chance: of each draw, how likely each customer is of each of these kinds by its leaving. Shapes (n, kinds).
    """

    taken: Ints
    kinds: tuple[Ints, ...]
    chance: tuple[Floats, ...]

    def log_likelihood(self, chosen: Floats) -> Floats:
        """Return the log likelihood of what was taken under each draw. Shapes (grid, tiers + 1) -> (draws,)."""
        rows, options = np.arange(len(self.taken)), chosen.shape[1]
        took = (
            (chance @ chosen[kinds])[rows, self.taken] for kinds, chance in zip(self.kinds, self.chance, strict=True)
        )
        return np.array([float(np.log((1 - LAPSES) * one + LAPSES / options).sum()) for one in took])


def _accounts(
    place: int, customers: Customers, leaving: Mixing, draws: Floats, random: np.random.Generator
) -> _Accounts | None:
    """Return who took a tier of an offer for its account, None where nobody did who was seen to wait."""
    if customers.choices is None:
        return None
    rows = np.flatnonzero((customers.choices[:, place] >= 0) & (customers.waited_s > 0))
    if not len(rows):
        return None
    if len(rows) > CUSTOMERS_MOST:
        rows = random.choice(rows, CUSTOMERS_MOST, replace=False)
    logs = np.multiply.outer(customers.disconnects[rows], np.log(leaving.urgency_per_s))
    logs -= np.multiply.outer(customers.waited_s[rows], leaving.urgency_per_s)
    kinds = tuple(np.flatnonzero(draw > 0) for draw in draws)
    chances = []
    for draw, own in zip(draws, kinds, strict=True):
        chance = logs[:, own] + np.log(draw[own])
        chance = np.exp(chance - chance.max(axis=1, keepdims=True))
        chances.append(chance / chance.sum(axis=1, keepdims=True))
    return _Accounts(customers.choices[rows, place], kinds, tuple(chances))


def _log_likelihood(
    answers: Answers,
    offers: Sequence[Offer],
    accounts: Sequence[_Accounts | None],
    urgency_per_s: Floats,
    draws: Floats,
    each: float,
) -> Floats:
    """Return the log likelihood of all choices at each multiple of the value, under one draw of lengths. Shape (multiples,)."""
    kept = np.exp(-np.multiply.outer(urgency_per_s, answers.time_s)) * answers.probability
    reached = np.cumsum(kept, axis=1) * answers.value_nanousd
    logs = np.zeros((len(MULTIPLES), len(draws)))
    for offer, own in zip(offers, accounts, strict=True):
        ends = [
            len(answers.tokens) if cap is None else int(np.searchsorted(answers.tokens, cap, side="right"))
            for cap in offer.caps_tokens
        ]
        worth = np.column_stack([reached[:, end - 1] if end else np.zeros(len(reached)) for end in ends])
        for place, multiple in enumerate(MULTIPLES.tolist()):
            chosen = _chosen(worth * multiple - np.array(offer.prices_nanousd))
            if offer.taken is not None:
                logs[place] += each * _of_conversations(offer, draws @ chosen)
            if own is not None:
                logs[place] += own.log_likelihood(chosen)
    found: Floats = logsumexp(logs, axis=1) - np.log(len(draws))
    return found


def _chosen(gains: Floats) -> Floats:
    """Return 1 where an urgency takes an option, none of the tiers being the first. Shapes (grid, tiers) -> (grid, tiers + 1)."""
    tiers = gains.shape[1]
    best = tiers - 1 - gains[:, ::-1].argmax(axis=1)
    takes = np.where(gains[np.arange(len(gains)), best] >= 0, best + 1, 0)
    taken: Floats = (takes[:, None] == np.arange(tiers + 1)).astype(np.float64)
    return taken


def _of_conversations(offer: Offer, mass: Floats) -> Floats:
    """Return the log likelihood of what was taken for single conversations. Shapes (draws, tiers + 1) -> (draws,)."""
    assert offer.taken is not None
    counts = np.array([offer.refused or 0, *offer.taken])
    if offer.refused is None:
        mass = mass * (np.arange(mass.shape[1]) > 0)
        mass /= np.maximum(mass.sum(axis=1, keepdims=True), 1e-300)
    likely: Floats = np.log((1 - LAPSES) * mass + LAPSES / mass.shape[1]) @ counts
    return likely
