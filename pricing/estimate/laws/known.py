"""The inputs for reading choices: the value of an answer, draws of lengths and pace, and choices under each draw."""

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
    are_named,
    as_read,
    as_timed,
    leaving_alone,
    paced,
    read_anew,
    seeming,
)
from pricing.estimate.laws.sampling import FULL, Sweeps
from pricing.estimate.laws.value import ValueEstimate, value_by_choices
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Offer, Statistics
from pricing.market.answers import Ints

Drawn = tuple[Survival, Pace]

UNEXPLAINED_MOST = 0.5
"""Where more than this share of the choices is best for no urgency, the choices were not made from the recorded menu."""


@dataclass(frozen=True, slots=True)
class Known:
    """Customers and choices, read under a single value or under equally likely values.

    Attributes:
        worth_nanousd: the value of an answer in the market: the stated value, or the best estimate from choices.
        value: the value by customers' choices, None where nobody chose or leaving is not read.
        drawn: draws of lengths and pace.
        values_nanousd: the value of an answer in each draw.
        read: customers and choices, once or under each draw.
        offers: the urgencies that take each tier of each menu, by the point estimate.
        blurred: which menus have tiers beyond all observed lengths, so that their choices do not identify the value.
        sources: the data behind urgency.
        left_out: numbers of choices that no urgency explains, by reason.
    """

    worth_nanousd: float
    value: ValueEstimate | None
    drawn: list[Drawn]
    values_nanousd: list[float]
    read: list[tuple[Rows, Chosen]]
    offers: list[Intervals]
    blurred: list[bool]
    sources: tuple[str, ...]
    left_out: Mapping[str, int]

    def draw(self, place: int) -> tuple[Survival, Pace, float]:
        """Return lengths, pace and value of a draw; places beyond the last draw start again at the first."""
        at = place % len(self.drawn)
        return *self.drawn[at], self.values_nanousd[at]

    def drawn_of(self, seen: Statistics) -> int:
        """Return the number of draws, 0 where tiers were taken, because their thresholds bound urgency."""
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
    sweeps: Sweeps = FULL,
) -> Known:
    """Return customers and choices as read under the stated value, or under a value estimated from choices.

    Raises:
        CannotEstimate: choices rule out the stated value, or do not identify a value where none is stated.
    """
    curve = length.pooled
    assert curve is not None
    reference_nanousd = _dearest(seen.offers) if said_nanousd is None else said_nanousd
    usable, offers, blurred = _used(seen, answers_of(curve, grid, pace, reference_nanousd))
    rereads = are_chosen(seen) and len(seen.customers.conversations) <= READ_ANEW_MOST
    drawn = [(curve, paced(pace, random)) for curve in length.redraws(CANDIDATES if rereads else draws, random)]
    answers = [
        answers_of(curve, grid, pace, reference_nanousd),
        *_answers(drawn, grid, [reference_nanousd] * len(drawn)),
    ]
    if said_nanousd is None:
        value, readings = _value_of(usable, leaving, answers, random, sum(blurred)), min(READINGS, draws)
        places, values = value.drawn(readings if rereads else draws, random)
        _, offers, blurred_at_value = _used(seen, answers_of(curve, grid, pace, value.taken_nanousd))
        rows, chosen, sources, left_out = as_read(seen, [seeming(entry, leaving) for entry in offers], leaving)
        _refuse_unexplained(seen, left_out)
        drawn, read = [drawn[place] for place in places], [(rows, chosen)]
        if rereads:
            intervals_by_draw = [
                [seeming(taken_by(offer, entry), leaving) for offer in seen.offers]
                for entry in _answers(drawn, grid, values)
            ]
            read = [as_read(seen, intervals, leaving)[:2] for intervals in intervals_by_draw]
        blurred = [a or b for a, b in zip(blurred, blurred_at_value, strict=True)]
        return Known(value.taken_nanousd, value, drawn, values, read, offers, blurred, sources, left_out)
    rows, chosen, sources, left_out = as_read(seen, [seeming(entry, leaving) for entry in offers], leaving)
    read = [(rows, chosen)]
    by_leaving = None if leaving.refused or not are_named(seen) else leaving_alone(seen, leaving, random, sweeps)
    crowd_random = random.spawn(1 if are_named(seen) else 2)[-1]
    implied_value = _value_beside(usable, leaving, answers, crowd_random)
    _refuse_unexplained(seen, left_out)
    if rereads:
        drawn, read = read_anew(drawn, seen, grid, leaving, by_leaving, reference_nanousd, random, min(READINGS, draws))
    return Known(
        reference_nanousd,
        implied_value,
        drawn,
        [reference_nanousd] * len(drawn),
        read,
        offers,
        blurred,
        sources,
        left_out,
    )


def _refuse_unexplained(observed: Statistics, left_out: Mapping[str, int]) -> None:
    """Refuse choices if no urgency explains most of them.

    Raises:
        CannotEstimate: more than half of the conversations' choices, or of the customers who chose, are unexplained.
    """
    counted = sum(sum(offer.taken) + (offer.refused or 0) for offer in observed.offers if offer.taken is not None)
    chose = 0 if observed.customers.choices is None else int(np.any(observed.customers.choices >= 0, axis=1).sum())
    for unit, number, reason in (("choices", counted, UNEXPLAINED), ("customers", chose, CONTRADICTING)):
        unexplained = left_out.get(reason, 0)
        if unexplained > UNEXPLAINED_MOST * number:
            raise CannotEstimate(
                f"{unexplained:,} of {number:,} {unit} took tiers that are best for nobody at the prices and caps of "
                "the menus that the records name, whatever the urgency: these menus are not those that were on sale, or "
                "the value is far from the stated value."
            )


def _dearest(offers: Sequence[Offer]) -> float:
    """Return the highest price of all menus, around which an unstated value is searched.

    Raises:
        CannotEstimate: no tier has a price.
    """
    dearest = max((price for offer in offers for price in offer.prices_nanousd), default=0)
    if dearest <= 0:
        raise CannotEstimate(
            "Nobody chose a tier for a price, so nothing tells what an answer is worth: state its value."
        )
    return float(dearest)


def _used(observed: Statistics, answers: Answers) -> tuple[Statistics, list[Intervals], list[bool]]:
    """Return statistics without choices that depend on unobserved lengths, offers' intervals, and which are blurred."""
    intervals = [intervals_of(offer, answers) for offer in observed.offers]
    blurred = [is_blurred(offer, ends, answers) for offer, ends in zip(observed.offers, intervals, strict=True)]
    return _without(observed, blurred), [taken_by(offer, answers) for offer in observed.offers], blurred


def _without(observed: Statistics, blurred: list[bool]) -> Statistics:
    offers = tuple(
        replace(offer, taken=None) if hidden else offer for offer, hidden in zip(observed.offers, blurred, strict=True)
    )
    choices = observed.customers.choices
    if choices is not None:
        choices = np.where(np.array(blurred, dtype=bool), -1, choices)
    return replace(observed, offers=offers, customers=replace(observed.customers, choices=choices))


def _answers(drawn: Sequence[Drawn], grid: Ints, values: Sequence[float]) -> list[Answers]:
    return [answers_of(curve, grid, speed, value) for (curve, speed), value in zip(drawn, values, strict=False)]


def _value_of(
    observed: Statistics, leaving: LeavingTests, answers: Sequence[Answers], random: np.random.Generator, blurred: int
) -> ValueEstimate:
    """Return the value that choices and leaving identify.

    Args:
        observed: the observed behaviour of customers.
        leaving: whether leaving is read.
        answers: lengths and pace, first as estimated, then the draws.
        random: the source of randomness.
        blurred: the number of menus whose choices depend on unobserved lengths and are left out of ``observed``.

    Raises:
        CannotEstimate: choices and leaving do not identify a value, or contradict each other.
    """
    if leaving.refused is not None:
        raise CannotEstimate(
            f"{leaving.refused} So leaving does not tell urgency, and nothing tells the value: state it."
        )
    estimate = value_by_choices(
        answers[0],
        answers[1:],
        observed.offers,
        as_timed(observed.customers, leaving),
        random.spawn(1)[0],
        is_said=False,
        otherwise=leaving.otherwise,
    )
    if estimate is None and blurred:
        under = "the menu" if blurred == 1 else f"{blurred} menus"
        raise CannotEstimate(
            f"The choice of the largest tiers of {under} depends on answers longer than all lengths seen, so choices there do not "
            "tell what an answer is worth: state its value, or estimate from more conversations."
        )
    if estimate is None:
        raise CannotEstimate(
            "Only leaving and choices of tiers together tell what an answer is worth, and one of them was not observed: "
            "state its value."
        )
    if not estimate.is_bounded:
        raise CannotEstimate(estimate.open_end())
    if estimate.disagrees:
        raise CannotEstimate(estimate.disagreement())
    return estimate


def _value_beside(
    observed: Statistics, leaving: LeavingTests, answers: Sequence[Answers], random: np.random.Generator
) -> ValueEstimate | None:
    """Return the value by choices and leaving where a value is stated, None where nobody chose or leaving is not read.

    Raises:
        CannotEstimate: choices and leaving rule out the stated value, or contradict each other.
    """
    if leaving.refused is not None:
        return None
    customers = as_timed(observed.customers, leaving)
    implied_value = value_by_choices(
        answers[0], answers[1:], observed.offers, customers, random, otherwise=leaving.otherwise
    )
    if implied_value is not None and implied_value.contradicts:
        raise CannotEstimate(implied_value.contradiction(answers[0].value_nanousd))
    if implied_value is not None and implied_value.disagrees:
        raise CannotEstimate(implied_value.disagreement())
    return implied_value
