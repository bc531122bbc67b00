"""Checks that a menu fails although its file and what is solved again agree: in the file's bound, its hashes, its conditions."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from pricing.bounds.bound import Multipliers
from pricing.certificate import verify
from pricing.market.market import Market, read_market
from pricing.market.neighbourhood import Neighbourhood
from pricing.market.worth import valuation_of, worth_at
from pricing.mechanism.mechanism import Allocation
from pricing.mechanism.offers import Offer
from pricing.mechanism.rounding import Published
from pricing.menus.menus import digests, optimal_menu, version_of, written
from pricing.menus.objectives import Further, Term
from pricing.menus.request import Wishes, wishes
from pricing.menus.solving import Solution, solve
from tests.pricing import markets

Json = dict[str, Any]

MARKET = markets.market(
    types=markets.types([0.1, 0.3], [0.5, 0.5]),
    answer_length={"family": "table", "tokens": [10, 20, 40], "probability": [0.2, 0.3, 0.5]},
    tokens_per_s=10,
)


def menu_of(**wished: Any) -> Json:
    arguments = {"tiers": None, "bill": "conversation", "names": None, "created": "2025-01-01T00:00:00Z"} | wished
    return json.loads(json.dumps(optimal_menu(read_market(MARKET), **arguments)))


def rehashed(menu: Json) -> Json:
    menu["certificate"]["digests"] = digests(menu)
    return menu


@dataclass(frozen=True, slots=True)
class Erring(Solution):
    """What a solver returns that errs: every menu it publishes has these fields."""

    errors: dict[str, Any] | None = None

    def published(self) -> Published:
        return replace(Solution.published(self), **(self.errors or {}))


def erring(**errors: Any) -> Any:
    """Return a solver that errs in the same way whenever it is asked."""

    def solver(market: Market, wished: Wishes, multipliers: Multipliers | None = None) -> Solution:
        right = solve(market, wished, multipliers)
        return Erring(**{field.name: getattr(right, field.name) for field in fields(right)}, errors=errors)

    return solver


def verdict_on(solver: Any) -> str:
    """Return the violation that is found in a menu by a solver when the same solver checks it."""
    market, wished = read_market(MARKET), wishes(tiers=None, bill="conversation", names=None)
    menu = json.loads(json.dumps(written(market, wished, solver(market, wished), "2025-01-01T00:00:00Z")))
    return verify(menu, solver).violation or ""


def test_a_solver_that_errs_does_not_verify_its_own_menu() -> None:
    """Own choice, participation and the two ways to the profit are checked on the numbers, whatever is solved again."""
    right = solve(read_market(MARKET), wishes(tiers=None, bill="conversation", names=None)).published()
    dear = right.prices + np.array([0, 2_000])
    beyond = right.prices + 50_000_000

    assert verdict_on(erring()) == ""
    assert "instead of t2" in verdict_on(erring(prices=dear))
    assert "than it is worth to it" in verdict_on(erring(prices=beyond))
    assert "profits that differ" in verdict_on(erring(unrounded=right.unrounded * (1 + 1e-6)))


def test_a_bound_is_of_the_income_that_counts() -> None:
    """Where customers' surplus has half of the weight, a type passes on half of its share: more is no bound."""
    market = read_market(MARKET)
    wished = wishes(tiers=None, bill="conversation", names=None, further=Further(surplus_weight=0.5))
    weights = (
        (Multipliers(np.array([0]), np.array([1]), np.array([flow])), refused)
        for flow, refused in ((0.25, False), (0.26, True), (0.5, True))
    )

    for multipliers, refused in weights:
        menu = json.loads(json.dumps(written(market, wished, solve(market, wished, multipliers), "2025-01-01")))
        assert ("pass on more" in (verify(menu).violation or "")) == refused
        assert verify(menu).ok != refused


def test_a_version_is_the_hash_of_the_inputs() -> None:
    """Even where everything else of the file fits."""
    menu = menu_of()
    menu["version"] = "0" * 16

    assert "not the hash of the menu's inputs" in (verify(rehashed(menu)).violation or "")


@pytest.mark.parametrize("part", ["tiers[0]", "totals", "certificate.bound", "created"])
def test_every_part_has_its_hash_and_no_other_has_one(part: str) -> None:
    menu = menu_of()
    short, long = json.loads(json.dumps(menu)), json.loads(json.dumps(menu))
    del short["certificate"]["digests"][part]
    long["certificate"]["digests"]["tiers[9]"] = long["certificate"]["digests"][part]

    assert verify(menu).ok
    assert f"{part} was changed" in (verify(short).violation or "")
    assert "tiers[9] was changed" in (verify(long).violation or "")


def tied(cost: float = 0.0, weight: float = 0.0) -> Market:
    """Return a market in which one cap for both types earns what two caps do, to the last digits.

    With d_i the worth of the second step to a type and c its cost, the shares are such that
    (1 - w)(d_2 - q_1 d_1) + w q_2 d_2 = q_2 c: what the larger cap of the second type adds to the aim.
    """
    even = markets.market(
        types=markets.types([0.1, 0.6], [0.5, 0.5]),
        answer_length={"family": "table", "tokens": [10, 20], "probability": [0.5, 0.5]},
        tokens_per_s=10,
        first_token_s=0,
        cost_nanousd_per_token=cost,
        cost_on_disconnect="runs",
        cap_tokens_max=20,
    )
    worth = worth_at(valuation_of(read_market(even)), np.array([1, 2]))
    first, second = (worth[:, 1] - worth[:, 0]).tolist()
    step_cost = cost * 10 * 0.5
    patient = (second - step_cost) / ((1 - weight) * first + weight * second - step_cost)
    return read_market(even | {"types": markets.types([0.1, 0.6], [patient, 1 - patient])})


@pytest.mark.parametrize(("cost", "weight"), [(0.0, 0.0), (100_000.0, 0.0), (0.0, 0.5), (100_000.0, 0.5)])
def test_either_of_two_sets_of_caps_that_are_as_good_is_accepted(cost: float, weight: float) -> None:
    """With a cost and a weight of customers' surplus, too: which one a solver finds may depend on the machine."""
    market = tied(cost, weight)
    wished = wishes(tiers=2, bill="conversation", names=None, further=Further(surplus_weight=weight))
    solution = solve(market, wished)

    for caps in ([2, 2], [2, 1]):
        twin = replace(solution, chosen=Allocation(np.array(caps), solution.chosen.profit))
        menu = json.loads(json.dumps(written(market, wished, twin, "2025-01-01")))
        assert len(menu["tiers"]) == len(set(caps))
        assert verify(menu).ok, verify(menu).violation


def test_caps_as_good_are_no_more_than_were_asked_for() -> None:
    """Two caps that earn what one earns are the menu of at most two, and not the menu of at most one."""
    market = tied()
    for most, is_right in ((2, True), (1, False)):
        wished = wishes(tiers=most, bill="conversation", names=None)
        solution = solve(market, wished)
        twin = replace(solution, chosen=Allocation(np.array([2, 1]), solution.chosen.profit))

        menu = json.loads(json.dumps(written(market, wished, twin, "2025-01-01")))

        assert len(menu["tiers"]) == 2
        assert verify(menu).ok == is_right, verify(menu).violation


def looked_for(most: int, **wished: Any) -> tuple[Market, Wishes, Solution]:
    market = read_market(MARKET)
    asked = wishes(tiers=most, bill="conversation", names=None, **wished)
    return market, asked, solve(market, asked)


def test_an_offer_that_scores_more_is_no_larger_than_was_asked_for() -> None:
    """The best offer of two tiers is not the best of at most one."""
    terms = (Term(1, price_nanousd_max=6_000_000),)
    _, _, two = looked_for(2, further=Further(terms=terms))
    market, asked, one = looked_for(1, further=Further(terms=terms))
    assert two.offer is not None
    assert one.offer is not None
    assert two.aim is not None
    score = two.aim.of(two.valuation)

    assert len(two.offer.caps) == 2
    assert score(two.offer) > score(one.offer)
    assert verify(json.loads(json.dumps(written(market, asked, one, "2025-01-01")))).ok
    assert not verify(json.loads(json.dumps(written(market, asked, replace(one, offer=two.offer), "2025-01-01")))).ok


@pytest.mark.parametrize(("lower", "is_right"), [(1, True), (40_000, False)])
def test_an_offer_is_as_good_to_eight_digits(lower: int, is_right: bool) -> None:
    """A search may end a little lower on another machine: an offer is accepted that is lower by less than that."""
    market = read_market(MARKET | {"value_nanousd": 20_000_000_000})
    asked = wishes(tiers=1, bill="conversation", names=None, objective="profit_if_resumed")
    solution = solve(market, asked)
    assert solution.offer is not None
    other = replace(solution, offer=Offer(solution.offer.caps, solution.offer.prices - lower))

    assert solution.offer.prices[0] > 10**9
    assert verify(json.loads(json.dumps(written(market, asked, other, "2025-01-01")))).ok == is_right


def test_a_tier_that_nobody_takes_is_not_added_to_an_offer() -> None:
    """A smaller cap at the price of a larger one changes no profit, and is no tier to sell."""
    market, asked, solution = looked_for(5, further=Further(robust=Neighbourhood()))
    assert solution.offer is not None
    caps, prices = solution.offer.caps, solution.offer.prices
    padded = Offer(np.array([caps[0] - 1, *caps]), np.array([prices[0], *prices]))

    assert caps[0] > 1
    assert verify(json.loads(json.dumps(written(market, asked, solution, "2025-01-01")))).ok
    assert not verify(json.loads(json.dumps(written(market, asked, replace(solution, offer=padded), "2025-01-01")))).ok


def test_an_assignment_turned_round_is_refused() -> None:
    """The more urgent types are said to take the larger tiers."""
    menu = menu_of()
    taken = [entry["tier"] for entry in menu["assignment"]]
    for entry, tier in zip(menu["assignment"], reversed(taken), strict=True):
        entry["tier"] = tier

    assert len(set(taken)) == 2
    assert "assignment" in (verify(rehashed(menu)).violation or "")
    assert version_of(menu["market"], menu["certificate"]["wishes"]) == menu["version"]


@pytest.mark.parametrize(
    ("change", "is_right"),
    [
        (lambda menu: add(menu["totals"], "profit_nanousd", 1e-5), True),
        (lambda menu: add(menu["totals"], "profit_nanousd", -1e-5), True),
        (lambda menu: add(menu["totals"], "profit_nanousd", 1e-2), False),
        (lambda menu: add(menu["totals"], "profit_nanousd", -1e-2), False),
        (lambda menu: add(menu["tiers"][0]["expected"], "cost_nanousd", 1e-6), True),
        (lambda menu: add(menu["tiers"][0]["expected"], "cost_nanousd", 1e-5), False),
        (lambda menu: add(menu["tiers"][0]["expected"], "cost_nanousd", -1e-5), False),
        (lambda menu: add(menu["tiers"][0]["expected"], "share", 1e-12), True),
        (lambda menu: add(menu["tiers"][0]["expected"], "share", -1e-9), False),
        (lambda menu: add(menu["certificate"]["resumption"], "tiers_considered", 1e-12), False),
        (lambda menu: menu["totals"]["tiers_profit_nanousd"].append(1.0), False),
        (lambda menu: menu["totals"]["tiers_profit_nanousd"].pop(), False),
        (lambda menu: menu["totals"].update(profit_nanousd=10**400), False),
    ],
)
def test_a_figure_is_within_what_another_machine_may_round_it_to(change: Any, is_right: bool) -> None:
    """Amounts to two millionths of a nano-unit or eleven digits, shares to eleven digits; whole numbers are exact."""
    menu = menu_of()
    assert menu["totals"]["profit_nanousd"] > 1e6
    assert menu["tiers"][0]["expected"]["cost_nanousd"] == 0
    change(menu)

    assert verify(rehashed(menu)).ok == is_right


def add(holder: Json, field: str, amount: float) -> None:
    holder[field] += amount


def test_what_the_file_cannot_be_read_for_is_said() -> None:
    """The inputs are named where they were changed, what is no JSON or no number is told, and a long value is cut."""
    wished, infinite, large, long = menu_of(), menu_of(), menu_of(), menu_of()
    wished["certificate"]["wishes"]["objective"] = "profit_if_resumed"
    infinite["totals"]["profit_nanousd"] = float("inf")
    large["certificate"]["bound"]["multipliers"]["patient"] = [10**30]
    long["created"], long["totals"]["profit_nanousd"] = "x", "9" * 1_000

    assert "certificate.wishes was changed after the menu was computed" in (verify(wished).violation or "")
    assert "not JSON" in (verify(infinite).violation or "")
    assert "three lists of numbers" in (verify(rehashed(large)).violation or "")
    assert 100 < len(verify(rehashed(long)).violation or "") < 200


def test_a_verdict_has_the_figures_of_the_file() -> None:
    """Of a market with a cost, in which no two of them are the same."""
    types = markets.types([0.02, 0.1, 0.3], [0.3, 0.3, 0.4])
    market = markets.market(cost_nanousd_per_token=3_000, types=types, cap_tokens_max=4_000)
    menu = optimal_menu(read_market(market), tiers=2, bill="conversation", names=None, created="2025-01-01")
    certificate, totals, verdict = menu["certificate"], menu["totals"], verify(menu)
    figures = [
        (verdict.own_choice_slack, certificate["conditions"]["own_choice_slack_nanousd"]),
        (verdict.participation_slack, certificate["conditions"]["participation_slack_nanousd"]),
        (verdict.worth_error, certificate["conditions"]["worth_error_nanousd"]),
        (verdict.profit, totals["profit_nanousd"]),
        (verdict.upper_bound, certificate["bound"]["upper_bound_nanousd"]),
        (verdict.gap_share, certificate["bound"]["gap_share"]),
        (verdict.profit_if_resumed, totals["profit_if_resumed_nanousd"]),
        (verdict.resume_gain, totals["resume_gain_nanousd"]),
    ]

    assert verdict.ok, verdict.violation
    assert certificate["bound"]["gap_share"] != certificate["bound"]["full_menu_gap_share"]
    assert len({stated for _, stated in figures}) == len(figures)
    assert [found for found, _ in figures] == pytest.approx([stated for _, stated in figures], rel=1e-9, abs=1e-6)
