"""A file whose figures are all consistent, but whose claim is false, is not verified."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pricing.certificate import verify
from pricing.market.fields import NotAMarket
from pricing.market.market import read_market
from pricing.mechanism.offers import offer_of
from pricing.mechanism.rounding import publish
from pricing.menus.menu import NotAMenu
from pricing.menus.menus import digests, optimal_menu, version_of, with_limits, written
from pricing.menus.request import wishes
from pricing.menus.solving import solve
from pricing.report.report import report
from tests.pricing import markets

Json = dict[str, Any]


def menu_of(market: Json, **wished: Any) -> Json:
    wishes = {"tiers": None, "bill": "conversation", "names": None, "created": "2025-01-01T00:00:00Z"} | wished
    return json.loads(json.dumps(optimal_menu(read_market(market), **wishes)))


def rehashed(menu: Json) -> Json:
    """Return the menu with all hashes recomputed, as a careful forger would."""
    menu["version"] = version_of(menu["market"], menu["certificate"]["wishes"])
    menu["certificate"]["digests"] = digests(menu)
    return menu


def test_caps_as_good_bought_once_but_not_when_resumed_are_refused() -> None:
    """No answer ends with the second step: bought once, caps of 10 and 20 tokens earn the same; resumed, they do not."""
    market = read_market(
        markets.market(
            types=markets.types([0.5, 0.57], [0.5, 0.5]),
            answer_length={
                "family": "table",
                "tokens": [10, 20, 30, 40, 50],
                "probability": [0.169, 0.0, 0.039, 0.724, 0.067],
            },
            tokens_per_s=10,
            first_token_s=0,
            cap_tokens_max=100,
        )
    )
    wished = wishes(tiers=None, bill="conversation", names=None, objective="profit_if_resumed")
    solution = solve(market, wished)
    ten, twenty = (
        written(market, wished, at_caps(solution, [cap, cap]), "2025-01-01T00:00:00Z")["totals"] for cap in (1, 2)
    )
    forged = written(market, wished, at_caps(solution, [2, 2]), "2025-01-01T00:00:00Z")

    assert ten["profit_nanousd"] == twenty["profit_nanousd"]
    assert twenty["profit_if_resumed_nanousd"] < 0.7 * ten["profit_if_resumed_nanousd"]
    assert not verify(forged).ok


def at_caps(solution: Any, caps: list[int]) -> Any:
    """Return the solution with these caps at the mechanism's prices in place of its own offer."""
    return replace(solution, offer=offer_of(publish(solution.valuation, np.array(caps))))


@pytest.mark.parametrize(
    "limits",
    [
        {"period_tokens_max": 0},
        {"end_user_period_tokens_max": 0},
        {"period_tokens_max": 10},
        {"conversation_input_tokens_max": 0},
        {"spend_nanousd_max": 0},
        {"spend_nanousd_max": 1},
    ],
)
def test_a_limit_below_what_one_conversation_takes_is_refused(limits: dict[str, int]) -> None:
    """A tier whose conversations nobody can use cannot be part of a menu that claims to be the most profitable."""
    menu = menu_of(markets.market(), tiers=2)

    for tier in ("t1", "t2"):
        with pytest.raises(NotAMenu, match="one conversation"):
            with_limits(menu, {tier: limits})


def test_a_menu_with_limits_claims_to_be_best_before_them_only() -> None:
    """The mechanism does not cover an operator's limits, and the claim says so."""
    menu = menu_of(markets.market(), tiers=2)
    limited = with_limits(menu, {"t1": {"requests_per_minute": 10}})
    claim = limited["certificate"]["claim"]
    forged = copy.deepcopy(limited)
    forged["certificate"]["claim"] = menu["certificate"]["claim"]

    assert claim == menu["certificate"]["claim"] + ", before its limits, of which nothing is claimed"
    assert verify(limited).ok
    assert "certificate.claim" in (verify(rehashed(forged)).violation or "")


def test_a_forged_limit_that_sells_nothing_is_named() -> None:
    """Even with new hashes and matching wishes, the tier could not be used, so the file is no menu."""
    forged = menu_of(markets.market(), tiers=2)
    forged["certificate"]["wishes"]["limits"] = {"t1": {"period_tokens_max": 0}}
    forged["tiers"][0]["period_tokens_max"] = 0

    assert "period_tokens_max" in (verify(rehashed(forged)).violation or "")


def test_a_subscription_claims_nothing_of_its_fee() -> None:
    """Included conversations that are not used are outside the proof."""
    menu = menu_of(markets.market(), bill="subscription")

    assert menu["certificate"]["claim"].endswith(
        ", each conversation at its price; of the period's fee nothing is claimed"
    )
    assert verify(menu).ok


ESTIMATE = {"value_understated_by": 0.05, "notes": ["Nobody knows what is above 4,000 tokens."]}


def test_what_was_estimated_is_not_called_the_best_of_all_mechanisms() -> None:
    """The claim is about the market of the file, which is an estimate."""
    plain, guessed = menu_of(markets.market()), menu_of(markets.market(estimate=ESTIMATE))

    assert plain["certificate"]["claim"] == "the most profitable of all mechanisms"
    assert guessed["certificate"]["claim"] == "the most profitable menu of caps for the market as it was estimated"


def test_an_assumed_market_is_called_assumed() -> None:
    menu = menu_of(markets.market(assumption="Assumed, not measured."))

    assert menu["certificate"]["claim"].endswith("for a market that was assumed")


def test_no_report_of_a_menu_in_another_market() -> None:
    """Otherwise slacks of another market would be printed under a certificate that holds for the menu's own market."""
    menu = menu_of(markets.market())
    other = read_market(markets.market(tokens_per_s=20))
    same = read_market(json.loads(json.dumps(markets.market(tokens_per_s=50.0))))

    with pytest.raises(NotAMarket, match="another market"):
        report(other, menu)
    assert "The certificate holds." in report(same, menu)


@pytest.mark.parametrize("document", [[], None, 3, "menu", [{}], True])
def test_what_is_no_object_is_refused_in_a_sentence(document: Any) -> None:
    assert verify(document).violation
