"""What a call costs, what is held for it, and what its records say: by hand, to the nano-unit."""

from __future__ import annotations

import math
from dataclasses import replace
from struct import iter_unpack, unpack_from
from typing import Any

import pytest

from gateway.holds.hold import Checkpoint, Facts, Hold, Outcome, correction, recovered, usage_record
from gateway.holds.offer import NOTHING, Charge, HouseLimits, charge, charge_bound, offer
from pricing.menus.menu import Tier
from pricing.money import affordable, metered, metered_bound

MTOK = 1_000_000
HOUSE = HouseLimits(
    answer_tokens_max=16_384,
    conversation_tokens_max=131_072,
    grant_tokens_min=16,
    observes=False,
    requests_per_minute=1_000,
    concurrency_max=50,
)


@pytest.mark.parametrize(
    ("tokens", "rate", "charged", "bound", "paid_for"),
    [(0, 5, 0, 0, None), (1, MTOK, 1, 1, 1), (3, MTOK // 2, 1, 2, 3), (7, 3 * MTOK, 21, 21, 7), (1, 1, 0, 1, None)],
)
def test_a_meters_charge_is_rounded_down_and_what_is_held_for_it_up(
    tokens: int, rate: int, charged: int, bound: int, paid_for: int | None
) -> None:
    """And as many tokens as are paid for by what is left are those whose bound it holds."""
    assert metered(tokens, rate) == charged
    assert metered_bound(tokens, rate) == bound
    for left in range(25):
        most = affordable(left, rate)
        assert metered_bound(most, rate) <= left < metered_bound(most + 1, rate)
    assert affordable(-5, rate) == 0


@pytest.mark.parametrize(
    ("tokens", "input_tokens", "owes", "expected"),
    [
        (10, 100, False, Charge(7 + 10 + 200, 10 + 200)),
        (10, 0, True, Charge(17, 10)),
        (0, 100, False, NOTHING),
        (0, 100, True, Charge(200, 200)),
        (0, 0, True, NOTHING),
    ],
)
def test_a_call_costs_its_conversations_price_and_what_its_meters_say(
    tokens: int, input_tokens: int, owes: bool, expected: Charge
) -> None:
    """Without an output token nothing, but for input that is owed; the price is never owed for that."""
    found = charge(7, 2 * MTOK, MTOK, tokens=tokens, input_tokens=input_tokens, owes_input=owes)

    assert found == expected


@pytest.mark.parametrize(("tokens", "input_tokens"), [(0, 0), (1, 1), (3, 5), (1_000, 999)])
def test_no_call_costs_more_than_was_held_for_it(tokens: int, input_tokens: int) -> None:
    """At rates that leave fractions."""
    held = charge_bound(7, 333_333, 666_667, tokens=tokens, input_tokens=input_tokens)

    assert held.first == held.again + 7
    for made in (0, tokens // 2, tokens):
        for read in (0, input_tokens // 2, input_tokens):
            for owes in (True, False):
                cost = charge(7, 333_333, 666_667, tokens=made, input_tokens=read, owes_input=owes)
                assert (cost.first <= held.first) and (cost.again <= held.again)
    assert held.again == metered_bound(tokens, 666_667) + metered_bound(input_tokens, 333_333)


TIER = Tier(
    "basic",
    price_nanousd=7,
    conversation_tokens_max=400,
    period_tokens_max=5_000,
    included_conversations=3,
    conversation_input_tokens_max=900,
    input_nanousd_per_mtok=11,
    output_nanousd_per_mtok=13,
    requests_per_minute=60,
    concurrency_max=2,
    spend_nanousd_max=99,
    end_user_period_tokens_max=70,
    hangup_bills="granted",
)
LIMITS = (
    *("conversation_tokens_max", "period_tokens_max", "conversation_input_tokens_max", "requests_per_minute"),
    *("concurrency_max", "spend_nanousd_max", "end_user_period_tokens_max"),
)


def test_an_offer_is_the_tiers() -> None:
    found = offer(TIER, "v1", {}, HOUSE)

    named = ("price_nanousd", "included_conversations", "input_nanousd_per_mtok", "output_nanousd_per_mtok")
    for name in (*LIMITS, *named, "hangup_bills"):
        assert getattr(found, name) == getattr(TIER, name), name
    assert (found.tier, found.version) == ("basic", "v1")


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("value", [0, 1, 10**6])
def test_a_customers_override_replaces_its_tiers_limit_and_no_other(limit: str, value: int) -> None:
    found = offer(TIER, "v1", {limit: value}, HOUSE)

    assert {name: getattr(found, name) for name in LIMITS} == {
        name: value if name == limit else getattr(TIER, name) for name in LIMITS
    }


def test_where_a_tier_says_nothing_the_house_does_or_there_is_no_limit() -> None:
    found = offer(Tier("bare"), None, {}, HOUSE)

    assert {name: getattr(found, name) for name in LIMITS} == {
        **dict.fromkeys(LIMITS),
        "conversation_tokens_max": 131_072,
        "requests_per_minute": 1_000,
        "concurrency_max": 50,
    }
    assert (found.price_nanousd, found.included_conversations, found.hangup_bills) == (0, 0, None)


@pytest.mark.parametrize("tier", [TIER, None])
def test_who_only_observes_caps_and_charges_nothing(tier: Tier | None) -> None:
    found = offer(tier, "v1", {"period_tokens_max": 1}, replace(HOUSE, observes=True))

    assert found.conversation_tokens_max == 131_072
    assert {getattr(found, name) for name in LIMITS[1:]} == {None}
    assert (found.price_nanousd, found.input_nanousd_per_mtok, found.output_nanousd_per_mtok) == (0, 0, 0)


def facts(**changes: Any) -> Facts:
    defaults = dict.fromkeys(Facts.__dataclass_fields__) | {
        **{"id": "c1", "choices": 3, "price_nanousd": 7, "input_nanousd_per_mtok": MTOK, "input_bound": 50},
        **{"output_nanousd_per_mtok": MTOK, "input_estimate": 25, "included_conversations": 0},
    }
    return Facts(**{**defaults, **changes})


def test_a_hold_is_the_grant_of_each_choice() -> None:
    hold = Hold(facts(), 0, 40, "cap", 0, None, None, 0, False, 0)

    assert (hold.id, hold.tokens) == ("c1", 120)


@pytest.mark.parametrize(("spend_max", "charged"), [(None, 7 + 10 + 80), (1_000, 7 + 10 + 50)])
def test_where_spend_is_limited_input_beyond_what_was_held_is_the_houses_loss(
    spend_max: int | None, charged: int
) -> None:
    came_to = Outcome(True, "complete", 10, 10, input_tokens=80)

    assert facts(spend_nanousd_max=spend_max).charge(came_to).first == charged


def test_thresholds_are_the_operators_shares_rounded_up() -> None:
    """Also of an amount whose hundredfold no double holds, and of facts that were read again."""
    most, own = 2**53 - 1, (33, 99)
    theirs = facts(spend_nanousd_max=most, notice_percents=own)

    assert facts().thresholds() == b""
    packed = facts(period_tokens_max=101, spend_nanousd_max=5).thresholds()
    assert unpack_from("<4d", packed) == (101, 5, 81, 4)
    assert list(iter_unpack("<3d", packed[32:])) == [(80, 81, 4), (100, 101, 5)]
    assert unpack_from("<4d", theirs.thresholds()) == (math.inf, most, math.inf, -(-most * 33 // 100))
    shares = list(iter_unpack("<3d", theirs.thresholds()[32:]))
    assert shares == [(one, math.inf, -(-most * one // 100)) for one in own]
    assert Facts.from_json(theirs.to_json()).thresholds() == theirs.thresholds()
    assert facts(spend_nanousd_max=5, notice_percents=()).thresholds() == b""
    assert unpack_from("<4d", facts(spend_nanousd_max=100, notice_percents=(90, 50)).thresholds())[3] == 50


@pytest.mark.parametrize(
    ("at", "input_tokens", "source"),
    [
        (Checkpoint(0), 0, None),
        (Checkpoint(0, owes_input=True), 25, "estimate"),
        (Checkpoint(9), 25, "estimate"),
    ],
)
def test_a_reclaimed_hold_is_billed_what_it_came_to_at_its_last_renewal(
    at: Checkpoint, input_tokens: int, source: str | None
) -> None:
    found = recovered(facts(), at)

    assert (found.finish, found.usage_source, found.was_answered) == ("recovered", "checkpoint", True)
    assert (found.output_tokens, found.billed_output_tokens) == (at.tokens, at.tokens)
    assert (found.input_tokens, found.input_source, found.owes_input) == (input_tokens, source, at.owes_input)


def test_a_correction_is_a_row_of_its_own_with_what_came_beyond() -> None:
    """The two rows together are the call."""
    outcome = Outcome(True, "cap", 60, 45, input_tokens=30, usage_source="upstream")
    at = Checkpoint(20)

    whole = usage_record(facts(), admitted=5, grant=40, outcome=outcome)
    more = correction(facts(), admitted=5, grant=40, outcome=outcome, billed=at)
    before = usage_record(facts(), admitted=5, grant=40, outcome=recovered(facts(), at))

    assert (more["id"], more["kind"], more["corrects"]) == ("c1.1", "correction", "c1")
    assert (whole["id"], whole["kind"], whole["corrects"], whole["time"]) == ("c1", "usage", None, 5)
    for name in ("input_tokens", "output_tokens", "billed_output_tokens"):
        assert before[name] + more[name] == whole[name], name
    assert more["finish"] == "cap"
