"""The notes of an estimate in sentences: what is not identified, and what was not used and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
from scipy.special import gammaincinv

from pricing.estimate.laws.leaving import EARLY, UNTIMED_S, LeavingTests
from pricing.estimate.laws.length import LengthEstimate
from pricing.estimate.laws.pace import Pace
from pricing.estimate.laws.urgency import Mixing
from pricing.estimate.laws.value import ValueEstimate
from pricing.estimate.observations.gathering import BEYOND_CAP
from pricing.estimate.observations.spread import Differing, OwnLengths, own_spread
from pricing.estimate.observations.statistics import Customers, Statistics
from pricing.estimate.untold import SHARES, SOONER, Untold

LEFT_LEAST = 10
"""With fewer conversations left, a note states an upper bound on urgency."""

WRONG = 0.2
"""The relative error of an unidentified value for which the profit that a menu keeps is stated."""

OWN_SPREAD_LEAST = 0.25
"""The standard deviation of the rates of ending, as a share, from which a note says that customers differ in length."""

SPEED_MOST = 10_000
"""The speed of an answer, tokens per second, above which the unit of times is likely wrong."""

CORRELATION_LEAST = 0.1
"""Below this correlation of tokens and time, records likely combine the tokens of an answer with the time of another."""

SINGLE_SHARE = 0.9
"""The share of customers with a single conversation above which a note says what that leaves unknown."""

BEYOND_MOST = 0.02
"""The share of conversations beyond the cap of their tier above which a note says that tiers or menus are wrong."""

APART_MOST = 1.1
"""The disagreement of the chains above which a note states it."""


def differing(found: Differing) -> str:
    """Return a sentence on the difference between answers of the urgent and of the patient, and on its effect."""
    sooner = found.ratio > 1
    much = found.ratio if sooner else 1 / max(found.ratio, 1e-9)
    return (
        f"Answers of the third of customers who leave soonest end {much:.2g} times as {'fast' if sooner else 'slowly'}, "
        f"token for token, as those of the third who stay longest (p = {found.p_value:.2g}); a menu of tiers that assumes one "
        "law of lengths for all has wrong caps and prices for both."
    )


def of_lengths(length: LengthEstimate, with_urgency: Differing | None, are_chosen: bool) -> tuple[str, ...]:
    """Return the notes on lengths; ``are_chosen`` is whether any choice of a tier was observed."""
    notes = []
    if with_urgency is not None:
        notes.append(
            f"{differing(with_urgency)} As lengths may differ, the menu has one tier, priced by the worth of complete answers "
            "of its own lengths to each type. The urgencies of the market are those to which answers of the common law are "
            "worth as much; they are wrong for menus of more tiers."
        )
    elif length.differs:
        notes.append(
            f"Answers of different tiers differ in length (p = {length.p_value:.2g}). As lengths may differ, the menu has one "
            "tier."
        )
    if length.changed is not None:
        how = "shorter" if length.changed > 1 else "longer"
        notes.append(
            f"Answers have become {how}: they end {length.changed:.2g} times as fast, token for token, as before. Lengths are "
            "estimated from the time since."
        )
    if length.own is None:
        notes.append(
            "Lengths by customer were not kept or are too few: bands and tests treat all answers as independent."
        )
    return (*notes, *(_of_own_lengths(length.own) if are_chosen else ()))


def _of_own_lengths(own: OwnLengths | None) -> tuple[str, ...]:
    """Return a note on how customers differ in length and the effect, no note where they hardly differ."""
    spread = 0.0 if own is None else own_spread(own)
    if spread < OWN_SPREAD_LEAST:
        return ()
    return (
        f"Customers differ in how long their answers are: the rates at which answers end have a standard deviation of {spread:.0%} "
        "between customers. A customer who chooses by the length of its own answers may take another tier than the common law "
        "implies. Then the estimates of value and urgency from choices are off, and so are prices: compare them with a fit from "
        "leaving alone.",
    )


def of_value(
    estimate: ValueEstimate | None, stated_nanousd: float | None, keeps: Callable[[Sequence[float]], list[float]]
) -> tuple[str, ...]:
    """Return notes on the value by customers' choices, and on the effect of a wrong stated value on the menu.

    Args:
        estimate: the value by customers' choices, None where choices do not identify it.
        stated_nanousd: the stated value, None where none is stated.
        keeps: returns the share of the profit that a menu for the stated value keeps at each of several true values.
    """
    if stated_nanousd is None and estimate is not None:
        return (_as_estimated(estimate),)
    assert stated_nanousd is not None
    if estimate is None:
        less, more = keeps([stated_nanousd * (1 + by) for by in (-WRONG, WRONG)])
        return (
            "Nobody's choice tells what an answer is worth, so the stated value is not tested. A menu made for this value keeps "
            f"{less:.0%} of the profit where an answer is worth a fifth less, {more:.0%} where it is worth a fifth more.",
        )
    if estimate.is_open:
        least, most = keeps([estimate.low_nanousd, estimate.high_nanousd])
        return (
            f"Choices leave open what an answer is worth: all values from {estimate.between} are about as likely. A menu made for "
            f"{stated_nanousd:,.0f} keeps {least:.0%} of the profit at the lowest of these values and {most:.0%} at the highest. A menu "
            "made for more than an answer is worth loses buyers; a menu made for the lowest value loses none.",
        )
    if estimate.low_nanousd <= stated_nanousd <= estimate.high_nanousd:
        return (
            f"Choices tell that an answer is worth {estimate.between}; the stated value, {stated_nanousd:,.0f}, lies in this range.",
        )
    [at_best] = keeps([estimate.best_nanousd])
    does = "lose buyers" if stated_nanousd > estimate.high_nanousd else "give answers away"
    return (
        f"Choices contradict the value: they tell that an answer is worth {estimate.between}, but the stated value is {stated_nanousd:,.0f}. "
        f"Prices made for the stated value {does}: if an answer is worth {estimate.best_nanousd:,.0f}, they keep "
        f"{at_best:.0%} of the profit. Estimate the value from choices, or state a value in this range.",
    )


def _as_estimated(value: ValueEstimate) -> str:
    if value.is_open:
        return (
            f"What an answer is worth is estimated from choices, which leave it open: all values from {value.between} are about "
            "as likely, because they put the same customers into the same tiers. Menus are made for the lowest of them, "
            "which loses no buyer; other prices, tried on some customers, would tell more."
        )
    return f"What an answer is worth is estimated from choices: {value.best_nanousd:,.0f}, {value.between} (95 %)."


def of_otherwise(leaving: LeavingTests, kept: float) -> str:
    """Return a note on the conversations left for another reason than impatience, and on their effect."""
    other_leaving = leaving.otherwise
    assert other_leaving is not None
    low, high = other_leaving.interval
    return (
        f"{EARLY} (p = {leaving.hazard_p:.2g}): {other_leaving.share:.0%} of the conversations ({low:.0%} to "
        f"{high:.0%}) end as if customers had what they need or connections broke, anywhere in the answer. Urgency is "
        f"estimated without these endings; a menu made as if they were impatience would keep {kept:.0%} of "
        "the profit. Their number is uncertain, and so are prices; count broken "
        "connections, or offer tiers and estimate from the tiers taken."
    )


def of_unread(kept: Sequence[float]) -> str:
    """Return a note on what is known of urgency where leaving is not read, and on the effect on a menu.

    Args:
        kept: the share of the profit that the menu keeps, in each of several equally likely markets.
    """
    return (
        "So urgency is known by the tiers taken alone: how many customers lie between two thresholds is known, but not where "
        f"between them. Depending on that, this menu keeps {min(kept):.0%} to {max(kept):.0%} of the profit; tiers with caps "
        "between the present caps would tell more."
    )


def of_untold(found: Untold) -> str:
    """Return a note on what leaving does not identify, and on its effect on a menu."""
    shares = [f"{share:.0%}" for share in SHARES]
    kept = [f"{share:.0%}" for share in found.kept]
    return (
        "Leaving is read as impatience alone, at the rate at which customers discount. Customers who leave because they have what they "
        "need, and connections that break, anywhere in the answer, are detected where they are a tenth of the conversations, but seldom "
        "where they are a twentieth. Endings at the same rate at any time, such as those of customers satisfied in the second half of an "
        "answer, are never detected, and make all customers look more urgent by that rate. If customers left "
        f"{' or '.join(shares)} of the conversations so, {found.per_s:.2g} a second or more, this menu would keep {' or '.join(kept)} "
        f"of the profit; if customers left {SOONER:g} times as soon as they discount, which nothing here tells, "
        f"{found.sooner_kept:.0%}."
    )


def of_few_left(customers: Customers, length: LengthEstimate, pace: Pace) -> tuple[str, ...]:
    """Return a note on the bound on urgency where few conversations were left, and on its effect."""
    left_count, waited = int(customers.disconnects.sum()), float(customers.waited_s.sum())
    if left_count >= LEFT_LEAST or waited <= 0:
        return ()
    assert length.pooled is not None
    urgency_most = float(gammaincinv(left_count + 1, 0.975)) / waited
    usual_s = (
        pace.first_token_s
        + float(length.pooled.tokens[length.pooled.survival <= 0.5].min(initial=length.identified_to_tokens))
        / pace.tokens_per_s
    )
    return (
        f"{left_count:,} of {int(customers.conversations.sum()):,} conversations were left: urgency is at most "
        f"{urgency_most:.3g}/s on average, perhaps 0, and how it differs between customers is unknown. Waiting takes at "
        f"most {-np.expm1(-urgency_most * usual_s):.2%} of the worth of an answer of usual length, and tiers can be "
        "priced by no more than that.",
    )


def of_chains(mixing: Mixing) -> tuple[str, ...]:
    """Return a note if the chains that drew the distribution of urgency do not agree."""
    if mixing.apart <= APART_MOST:
        return ()
    return (f"The chains that drew the distribution of urgency do not agree ({mixing.apart:.2f}, where 1 is best).",)


def _of_records(seen: Statistics) -> list[str]:
    """Return notes on records that may be other than they seem: conversations that go on, customers, caps."""
    notes, going, conversations = [], seen.going, int(seen.customers.conversations.sum())
    if going:
        notes.append(f"{going:,} conversations may still go on; they are counted as they stand.")
    if going > conversations / 2:
        notes[-1] += (
            " They are more than half of all. The times of the records may be in another unit than milliseconds: then weeks and "
            "days are wrong, and changes of customers or lengths are not detected."
        )
    if float(np.mean(seen.customers.conversations == 1)) > SINGLE_SHARE:
        notes.append(
            "Nearly all customers have a single conversation, as if a customer came under another name each time. How customers "
            "differ in urgency is then known only from the time at which each customer left, if it left, and prices rest on little."
        )
    beyond = seen.set_aside.get(BEYOND_CAP, 0)
    if beyond > BEYOND_MOST * (conversations + beyond):
        notes.append(
            f"{beyond:,} conversations have more tokens than the cap of the tier that they name, so this cap did not apply to them: "
            "their lengths are left out. If records name other tiers or menus than were sold, choices and prices are wrong."
        )
    return notes


def of_conversations(seen: Statistics, blurred: int, changed_week: int | None) -> tuple[str, ...]:
    """Return notes on conversations that count only in part, and on records that may be other than they seem.

    Args:
        seen: the counted behaviour of customers.
        blurred: the number of menus whose largest tiers end beyond all observed lengths.
        changed_week: the week, counted from 1970, in which customers began to leave at other rates, if any.
    """
    notes = _of_records(seen)
    if changed_week is not None:
        day = date.fromordinal(date(1970, 1, 1).toordinal() + 7 * changed_week)
        notes.append(
            f"Customers left at other rates before {day}. The estimated urgency is that of the time since; earlier behaviour "
            "counts as if the urgency of all customers had changed by the same factor."
        )
    if blurred:
        notes.append(
            f"Under {blurred} menus, the choice of the largest tiers depends on answers beyond all lengths seen: there choices are "
            "read only as far as they mean the same whatever these answers are, and do not tell the value."
        )
    return tuple(notes)


def notes_of(
    length: LengthEstimate, pace: Pace, leaving: LeavingTests, aged: bool, served_to: float | None, prior: bool
) -> tuple[str, ...]:
    """Return the notes on unidentified lengths, pace, refusals and the tests of leaving."""
    assert length.pooled is not None
    notes = []
    if length.pooled.unfinished > 0:
        notes.append(
            f"Not identified above the largest cap: {length.pooled.unfinished:.1%} of answers are longer than "
            f"{length.identified_to_tokens:,} tokens, but how much longer was not observed; no cap of the menu is larger."
        )
    if leaving.refused is not None:
        notes.append(f"Disconnects were not read as urgency. {leaving.refused}")
    elif leaving.untimed_only:
        seconds = ", ".join(str(second) for second in leaving.spikes_s)
        notes.append(
            f"Disconnects pile up after {seconds} s: clients give up there, urgent or not. Only the first "
            f"{UNTIMED_S:g} s of each wait were read as urgency, without a test for a constant rate."
        )
    else:
        untested = [
            name
            for name, is_tested in (
                ("constant rate", leaving.hazard_p is not None),
                ("steadiness from day to day", leaving.dispersion_p is not None),
                ("time-outs of clients", aged),
            )
            if not is_tested
        ]
        if untested:
            notes.append(f"Leaving was not tested for {' or '.join(untested)}: the records for it were not kept.")
    if served_to is not None:
        keeps = "keep the share that was assumed" if prior else "are missing from the market"
        notes.append(f"Refusals were not counted: urgencies above {served_to:.3g}/s, which no tier served, {keeps}.")
    if pace.tokens_per_s > SPEED_MOST:
        notes.append(
            f"Answers come at {pace.tokens_per_s:,.0f} tokens a second, faster than models make them. Times are read as "
            "milliseconds; if the records have another unit, urgency and prices are wrong by the same factor."
        )
    if pace.correlation is not None and pace.correlation < CORRELATION_LEAST:
        notes.append(
            f"Answers of more tokens take no longer (correlation {pace.correlation:.2f}): tokens or times belong to other calls, so "
            "urgency, speed and all prices are wrong. Check how the records were joined."
        )
    if pace.first_token_s == 0:
        notes.append("The first token came as fast as any other, so the first-token delay is 0.")
    return tuple(notes)
