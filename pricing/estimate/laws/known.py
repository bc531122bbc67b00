"""What choices are read with: the value of an answer, draws of lengths and pace, and what each of them makes of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pricing.estimate.laws.choices import Answers, Intervals, intervals_of, is_blurred, taken_by
from pricing.estimate.laws.grouped_customers import Chosen, Rows
from pricing.estimate.laws.leaving import LeavingTests
from pricing.estimate.laws.length import LengthEstimate, Survival
from pricing.estimate.laws.pace import Pace
from pricing.estimate.laws.readings import (
    CANDIDATES,
    CONTRADICTING,
    READ_ANEW_MOST,
    READINGS,
    UNEXPLAINED,
    answers_of,
    are_chosen,
    as_read,
    as_timed,
    leaving_alone,
    paced,
    read_anew,
    seeming,
)
from pricing.estimate.laws.value import ValueTold, value_told
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Offer, Statistics
from pricing.market.answers import Ints

Drawn = tuple[Survival, Pace]

UNEXPLAINED_MOST = 0.5
"""Where more than this share of what was chosen is best for nobody, it was not chosen from the menu that is named."""


@dataclass(frozen=True, slots=True)
class Known:
    """Customers and choices as they are read, under one value or under equally likely ones.

    Attributes:
        worth_nanousd: the value of an answer that the market is written with: what was said, else what choices tell best.
        value: what choices tell of it, None where nobody chose or leaving is not read.
        drawn: draws of lengths and pace.
        values_nanousd: the value that goes with each of them.
        read: customers and choices, once or as each draw reads them.
        offers: who takes which tier of each menu, by the estimate itself.
        blurred: which menus have tiers beyond all lengths seen, so that their choices do not tell the value.
        sources: what urgency is learnt from.
        left_out: choices that no urgency explains, by reason.
    """

    worth_nanousd: float
    value: ValueTold | None
    drawn: list[Drawn]
    values_nanousd: list[float]
    read: list[tuple[Rows, Chosen]]
    offers: list[Intervals]
    blurred: list[bool]
    sources: tuple[str, ...]
    left_out: Mapping[str, int]

    def drawn_of(self, seen: Statistics) -> int:
        """Return how many draws there are, 0 where tiers were taken, which hold urgency between thresholds."""
        return 0 if are_chosen(seen) else len(self.drawn)


def known(
    seen: Statistics,
    length: LengthEstimate,
    pace: Pace,
    grid: Ints,
    leaving: LeavingTests,
    said_nanousd: float | None,
    draws: int,
    random: np.random.Generator,
) -> Known:
    """Return what choices are read with; without a value that was said, one that they tell.

    Raises:
        CannotEstimate: choices rule out the value that was said, or do not tell one that nobody said.
    """
    curve = length.pooled
    assert curve is not None
    about = _dearest(seen.offers) if said_nanousd is None else said_nanousd
    told, offers, blurred = _used(seen, answers_of(curve, grid, pace, about))
    anew = are_chosen(seen) and len(seen.customers.conversations) <= READ_ANEW_MOST
    drawn = [(length.redrawn(random), paced(pace, random)) for _ in range(CANDIDATES if anew else draws)]
    at_once = [answers_of(curve, grid, pace, about), *_answers(drawn, grid, [about] * len(drawn))]
    if said_nanousd is None:
        value, readings = _value_of(told, leaving, at_once, random, sum(blurred)), min(READINGS, draws)
        places, values = value.drawn(readings if anew else draws, random)
        _, offers, at_worth = _used(seen, answers_of(curve, grid, pace, value.taken_nanousd))
        rows, chosen, sources, left_out = as_read(seen, [seeming(one, leaving) for one in offers], leaving)
        _refuse_unexplained(seen, left_out)
        drawn, read = [drawn[place] for place in places], [(rows, chosen)]
        if anew:
            every = [
                [seeming(taken_by(offer, one), leaving) for offer in seen.offers]
                for one in _answers(drawn, grid, values)
            ]
            read = [as_read(seen, intervals, leaving)[:2] for intervals in every]
        blurred = [a or b for a, b in zip(blurred, at_worth, strict=True)]
        return Known(value.taken_nanousd, value, drawn, values, read, offers, blurred, sources, left_out)
    rows, chosen, sources, left_out = as_read(seen, [seeming(one, leaving) for one in offers], leaving)
    read = [(rows, chosen)]
    alone = leaving_alone(seen, leaving, random) if are_chosen(seen) and leaving.refused is None else None
    told_value = _value_beside(told, leaving, at_once, random)
    _refuse_unexplained(seen, left_out)
    if anew:
        drawn, read = read_anew(drawn, seen, grid, leaving, alone, about, random, min(READINGS, draws))
    return Known(about, told_value, drawn, [about] * len(drawn), read, offers, blurred, sources, left_out)


def _refuse_unexplained(seen: Statistics, left_out: Mapping[str, int]) -> None:
    """Refuse choices most of which no urgency explains.

    Raises:
        CannotEstimate: they are more than half of the choices of conversations, or of the customers who chose.
    """
    counted = sum(sum(offer.taken) + (offer.refused or 0) for offer in seen.offers if offer.taken is not None)
    chose = 0 if seen.customers.choices is None else int(np.any(seen.customers.choices >= 0, axis=1).sum())
    for what, number, reason in (("choices", counted, UNEXPLAINED), ("customers", chose, CONTRADICTING)):
        odd = left_out.get(reason, 0)
        if odd > UNEXPLAINED_MOST * number:
            raise CannotEstimate(
                f"{odd:,} of {number:,} {what} took tiers that are best for nobody at the prices and caps of the menus that the "
                "records name, whatever the urgency: the menus are not those that were on sale, or the value is far from the "
                "one that was said."
            )


def _dearest(offers: Sequence[Offer]) -> float:
    """Return the highest price of all menus, about which a value that nobody said is looked for.

    Raises:
        CannotEstimate: nothing had a price.
    """
    dearest = max((price for offer in offers for price in offer.prices_nanousd), default=0)
    if dearest <= 0:
        raise CannotEstimate(
            "Nobody chose a tier for a price, so nothing tells what an answer is worth: say its value."
        )
    return float(dearest)


def _used(seen: Statistics, answers: Answers) -> tuple[Statistics, list[Intervals], list[bool]]:
    """Return the statistics without choices that hang on lengths nobody saw, who may take what, and which these are."""
    least = [intervals_of(offer, answers) for offer in seen.offers]
    blurred = [is_blurred(offer, ends, answers) for offer, ends in zip(seen.offers, least, strict=True)]
    return _without(seen, blurred), [taken_by(offer, answers) for offer in seen.offers], blurred


def _without(seen: Statistics, blurred: list[bool]) -> Statistics:
    offers = tuple(
        replace(offer, taken=None) if hidden else offer for offer, hidden in zip(seen.offers, blurred, strict=True)
    )
    choices = seen.customers.choices
    if choices is not None:
        choices = np.where(np.array(blurred, dtype=bool), -1, choices)
    return replace(seen, offers=offers, customers=replace(seen.customers, choices=choices))


def _answers(drawn: Sequence[Drawn], grid: Ints, values: Sequence[float]) -> list[Answers]:
    return [answers_of(curve, grid, speed, value) for (curve, speed), value in zip(drawn, values, strict=False)]


def _value_of(
    seen: Statistics, leaving: LeavingTests, answers: Sequence[Answers], random: np.random.Generator, blurred: int
) -> ValueTold:
    """Return the value that choices and leaving tell: with answers as estimated, then draws of them.

    Args:
        seen: what customers did.
        leaving: whether leaving is read.
        answers: lengths and pace.
        random: where chance comes from.
        blurred: under how many menus choices hang on lengths nobody saw and are left out of ``seen``.

    Raises:
        CannotEstimate: they tell none, or contradict each other.
    """
    if leaving.refused is not None:
        raise CannotEstimate(
            f"{leaving.refused} So leaving does not tell urgency, and nothing tells the value: say it."
        )
    told = value_told(
        answers[0],
        answers[1:],
        seen.offers,
        as_timed(seen.customers, leaving),
        random.spawn(1)[0],
        is_said=False,
        otherwise=leaving.otherwise,
    )
    if told is None and blurred:
        under = "the menu" if blurred == 1 else f"{blurred} menus"
        raise CannotEstimate(
            f"Who takes the largest tiers of {under} hangs on answers longer than all lengths seen, so choices there do not tell "
            "what an answer is worth: say its value, or estimate from more conversations."
        )
    if told is None:
        raise CannotEstimate(
            "Only leaving and choices of tiers together tell what an answer is worth, and they are not both there: say "
            "its value."
        )
    if not told.is_bounded:
        raise CannotEstimate(told.open_end())
    if told.disagrees:
        raise CannotEstimate(told.disagreement())
    return told


def _value_beside(
    seen: Statistics, leaving: LeavingTests, answers: Sequence[Answers], random: np.random.Generator
) -> ValueTold | None:
    """Return what choices and leaving tell of a value that was said, None where nobody chose or leaving is not read.

    Raises:
        CannotEstimate: they rule it out, or contradict each other.
    """
    if leaving.refused is not None:
        return None
    customers = as_timed(seen.customers, leaving)
    of_crowds = random.spawn(1)[0]
    told = value_told(answers[0], answers[1:], seen.offers, customers, of_crowds, otherwise=leaving.otherwise)
    if told is not None and told.contradicts:
        raise CannotEstimate(told.contradiction(answers[0].value_nanousd))
    if told is not None and told.disagrees:
        raise CannotEstimate(told.disagreement())
    return told
