"""The demo's comparison with its menu is as strict as it says: a menu that is right passes, one that is off does not."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from gateway.demo.expectations import COUNT_LEAST, Conversations, Judgement, judge
from pricing.usage import UsageRecord

PRICES = {"quick": 2_000_000, "standard": 9_000_000, "unlimited": 14_000_000}
SHARE = {"quick": 0.15, "standard": 0.25, "unlimited": 0.6}
P_ANSWER = {"quick": 0.12, "standard": 0.57, "unlimited": 1.0}
MENU: dict[str, Any] = {
    "currency": "USD",
    "tiers": [
        {"name": name, "price_nanousd": price, "expected": {"share": SHARE[name], "p_answer": P_ANSWER[name]}}
        for name, price in PRICES.items()
    ],
}
FEWEST = round(COUNT_LEAST / min(SHARE.values())) + 1


def record(number: int, tier: str, **changes: Any) -> UsageRecord:
    return {
        "id": f"req_{number}",
        "kind": "usage",
        "customer": "cus_a",
        "tier": tier,
        "finish": "complete",
        "billed_output_tokens": 5,
        "charge_nanousd": PRICES[tier],
        **changes,
    }


def conversations(*records: UsageRecord) -> Conversations:
    seen = Conversations(PRICES, {"cus_a"})
    for each in records:
        seen.note(each)
    return seen


def drawn(chance: Random, total: int, share: dict[str, float], p_answer: dict[str, float]) -> Conversations:
    """Return what customers come to who follow these probabilities."""
    seen = Conversations(PRICES, {"cus_a"})
    for tier in chance.choices(list(share), list(share.values()), k=total):
        seen.by_tier[tier] += 1
        seen.answered[tier] += chance.random() < p_answer[tier]
        seen.charge_nanousd += PRICES[tier]
    return seen


def judged(chance: Random, total: int, **changed: dict[str, float]) -> Judgement:
    return judge(MENU, drawn(chance, total, changed.get("share", SHARE), changed.get("p_answer", P_ANSWER)))


def test_figures_are_those_of_the_ledger() -> None:
    """Shares, answers within the cap and the mean charge are counted, with the errors of the expected probabilities."""
    records = [record(number, "quick", finish="cap") for number in range(2)]
    records += [record(number, "unlimited") for number in range(2, 8)]

    figures = {figure.name: figure for figure in judge(MENU, conversations(*records)).figures}

    share, answered, charge = figures["quick: share"], figures["quick: answers within the cap"], figures["mean charge"]
    assert (share.expected, share.observed, share.error) == pytest.approx((0.15, 0.25, (0.15 * 0.85 / 8) ** 0.5))
    assert (answered.expected, answered.observed, answered.error) == pytest.approx(
        (0.12, 0.0, (0.12 * 0.88 / 2) ** 0.5)
    )
    assert (charge.expected, charge.observed) == pytest.approx((10_950_000, 11_000_000))
    assert figures["unlimited: answers within the cap"].z == 0
    assert figures["standard: answers within the cap"].z == 0


def test_a_menu_that_is_right_fails_in_less_than_one_run_of_a_thousand() -> None:
    """With as few conversations as are judged at all, where the normal law is at its worst."""
    chance = Random(20)

    failed = sum(not judged(chance, FEWEST).agrees for _ in range(6_000))

    assert failed <= 6


@pytest.mark.parametrize(
    "changed",
    [
        {"share": {"quick": 0.25, "standard": 0.25, "unlimited": 0.5}},
        {"p_answer": {"quick": 0.12, "standard": 0.75, "unlimited": 1.0}},
        {"p_answer": {"quick": 0.12, "standard": 0.57, "unlimited": 0.99}},
    ],
)
def test_a_menu_that_is_off_is_found_out(changed: dict[str, dict[str, float]]) -> None:
    """Of the thousand conversations of a minute, ten points more for a tier are enough; so is one uncapped answer cut."""
    chance = Random(21)

    assert not any(judged(chance, 1_000, **changed).agrees for _ in range(20))


def test_every_conversation_has_its_tiers_price() -> None:
    """One nano-unit more, a price for an answer without a token, or a tier that is not on the menu is named."""
    right = [record(number, "quick") for number in range(3)]
    unanswered = record(3, "quick", billed_output_tokens=0, charge_nanousd=0, finish="upstream_error")
    wrong = [
        record(4, "quick", charge_nanousd=2_000_001),
        record(5, "quick", billed_output_tokens=0),
        record(6, "quick") | {"tier": "other"},
    ]

    assert judge(MENU, conversations(*right, unanswered)).mischarged == ()
    assert judge(MENU, conversations(*right, unanswered, *wrong)).mischarged == ("req_4", "req_5", "req_6")
    assert not judge(MENU, conversations(*right, *wrong)).agrees


def test_only_the_simulated_customers_count() -> None:
    """What the visitor says is in the ledger and in no share; a correction adds its charge and no conversation."""
    visitor = record(1, "quick", customer="cus_you")
    correction = record(2, "quick", kind="correction", charge_nanousd=7)

    seen = conversations(record(0, "unlimited"), visitor, correction)

    assert seen.total == 1
    assert seen.charge_nanousd == PRICES["unlimited"] + 7
    assert seen.mischarged == []


def test_types_that_buy_nothing_hold_no_conversations() -> None:
    """Shares are of conversations offered; those of excluded types never take place."""
    tiers = [
        {**tier, "expected": {**tier["expected"], "share": tier["expected"]["share"] / 2}} for tier in MENU["tiers"]
    ]

    figures = judge(MENU | {"tiers": tiers}, conversations(record(0, "quick"))).figures

    assert [figure.expected for figure in figures[:3]] == pytest.approx(list(SHARE.values()))


def test_what_is_printed_says_how_wide_it_is() -> None:
    """A table with twice the standard error and z, then the verdict in words."""
    lines = judged(Random(22), 1_000).lines()

    assert lines[0].startswith("1000 conversations in the ledger")
    assert lines[1].split() == ["expected", "observed", "±", "2", "s.e.", "z"]
    assert len(lines) == 2 + 7 + 2
    assert lines[2].startswith("quick: share")
    assert "2.3%" in lines[2]
    assert lines[-2] == "Each of them was charged the price of its tier, once."
    assert lines[-1].startswith("Nothing is off by more than 4 standard errors; by chance alone ")


def test_too_few_conversations_are_no_evidence() -> None:
    """They are shown and not judged; where nobody talked there is nothing to show."""
    few = judge(MENU, conversations(*[record(number, "quick") for number in range(FEWEST - 2)]))
    none = judge(MENU, conversations())

    assert few.agrees
    assert few.lines()[-1] == "These are too few to judge by: each tier must expect 20 conversations."
    assert none.agrees
    assert none.lines() == ["Nobody has talked, so there is nothing to compare with the menu."]


def test_what_is_off_is_named() -> None:
    """The verdict names the figures beyond four standard errors."""
    judgement = judge(MENU, conversations(*[record(number, "quick") for number in range(FEWEST)]))

    assert not judgement.agrees
    assert judgement.lines()[-1].startswith("Off by more than 4 standard errors: quick: share, ")
