"""Robust menus: their profits near their market, and bounds that no menu can exceed."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from pricing.certificate import verify
from pricing.market.market import read_market
from pricing.market.neighbourhood import Neighbourhood, longer, more_urgent
from pricing.market.worth import Valuation, valuation_of, worth_at
from pricing.mechanism.demand import crowd_of
from pricing.mechanism.offers import Offer, cleaned
from pricing.mechanism.tiers import best_tiers
from pricing.menus.held import as_taken_at_most
from pricing.menus.menus import digests, optimal_menu
from pricing.menus.objectives import Further
from pricing.menus.robust import robust_of
from pricing.report.menu_table import held_lines
from tests.pricing import markets
from tests.pricing.certificate.test_tampering import verified
from tests.pricing.menus.test_objectives import BASE, LOGNORMAL, TOKENS, menu_of

Json = dict[str, Any]

FIVE = BASE | {"types": markets.types([0.005, 0.02, 0.06, 0.12, 0.3], [0.2] * 5)}
SPREAD = {name: field for name, field in BASE.items() if name != "types"} | {
    "urgency": {"family": "uniform", "low_per_s": 0.005, "high_per_s": 0.2, "points": 30}
}
KINDS = {"three": BASE, "five": FIVE, "lognormal": markets.lognormal(), "spread": SPREAD}


@pytest.fixture(scope="module")
def menus() -> dict[str, Json]:
    """A robust menu of three tiers in each of these markets of the table in pricing/README.md."""
    return {
        name: optimal_menu(
            read_market(description),
            tiers=3,
            bill="conversation",
            names=None,
            created="x",
            further=Further(robust=Neighbourhood()),
        )
        for name, description in KINDS.items()
    }


def single_plan(valuation: Valuation, sigma: float) -> float:
    """Return the profit of the best single plan, by trying prices."""
    crowd = crowd_of([(1.0, valuation, sigma, 0.0)])
    last = crowd.worth.shape[1] - 1
    prices = np.unique(np.outer(crowd.worth[:, last], np.linspace(0.75, 1, 26)).astype(np.int64))
    return max(crowd.profit(Offer(np.array([last]), np.array([price]))) for price in prices)


@pytest.mark.parametrize(
    ("name", "as_taken", "as_taken_most", "least", "least_most", "mean"),
    [
        ("three", 0.955, None, 0.943, 0.962, 0.983),
        ("five", 0.972, 0.982, 1.005, None, 1.040),
        ("lognormal", 0.962, 0.977, 1.032, None, 1.088),
        ("spread", 0.990, None, 1.056, None, 1.087),
    ],
)
def test_the_table_of_robust_menus(
    menus: dict[str, Json],
    name: str,
    as_taken: float,
    as_taken_most: float | None,
    least: float,
    least_most: float | None,
    mean: float,
) -> None:
    """The rows of the README; the file states the menu's claims, and bounds for what it falls short of."""
    robust = menus[name]["certificate"]["robust"]
    shares = [one["profit_nanousd"] / one["single_plan_profit_nanousd"] for one in robust["markets"][1:]]
    held = robust["held"]

    assert held["as_taken_share"] == pytest.approx(as_taken, abs=0.002)
    assert held["as_taken_share_at_most"] == (as_taken_most and pytest.approx(as_taken_most, abs=0.001))
    assert min(shares) == pytest.approx(held["elsewhere_share"], abs=1e-6) == pytest.approx(least, abs=0.002)
    assert held["elsewhere_share_at_most"] == (least_most and pytest.approx(least_most, abs=0.001))
    assert np.mean(shares) == pytest.approx(held["elsewhere_share_on_average"]) == pytest.approx(mean, abs=0.002)
    assert robust["average_nanousd"] <= robust["upper_bound_nanousd"]


@pytest.mark.parametrize("seed", range(8))
def test_a_robust_menu_makes_its_claims_or_says_which_it_does_not(seed: int) -> None:
    """Random markets of two to five kinds; every profit is computed independently of the file."""
    random = np.random.default_rng(seed)
    kinds = int(random.integers(2, 6))
    description = BASE | {
        "types": markets.types(
            np.sort(np.exp(random.uniform(np.log(0.004), np.log(0.3), kinds))), random.dirichlet(np.full(kinds, 4.0))
        )
    }
    menu, valuation = menu_of(description, robust=Neighbourhood()), valuation_of(read_market(description))
    caps = [len(TOKENS) if (cap := tier["conversation_tokens_max"]) is None else cap // 20 for tier in menu["tiers"]]
    offer = Offer(np.array(caps), np.array([tier["price_nanousd"] for tier in menu["tiers"]]))
    crowds = [crowd_of([(1.0, one, sigma, 0.0)]) for _, one, sigma in Neighbourhood().around(valuation)]
    profits = np.array([crowd.profit(offer) for crowd in crowds])
    singles = np.array([single_plan(one, sigma) for _, one, sigma in Neighbourhood().around(valuation)])
    shares = profits[1:] / singles[1:]
    held = menu["certificate"]["robust"]["held"]
    price = menu["certificate"]["robust"]["one_price"]["price_nanousd"]
    at_one_price = np.array([crowd.profit(Offer(np.array([len(TOKENS)]), np.array([price]))) for crowd in crowds])
    other_prices = [
        np.mean([crowd.profit(Offer(np.array([len(TOKENS)]), np.array([round(price * factor)]))) for crowd in crowds])
        for factor in (0.9, 0.97, 1.02, 1.1)
    ]

    assert held["claims"] == {
        "as_taken": bool(profits[0] >= 0.98 * best_tiers(valuation, 3)[-1].profit),
        "elsewhere": bool(shares.min() >= 0.97 - 1e-9),
        "on_average": bool(shares.mean() > 1),
    }
    assert held["all"] == (not any(line.startswith("Not claimed") for line in held_lines(menu["certificate"])))
    assert np.all(profits >= 0.97 * at_one_price - 1)
    assert profits.mean() >= at_one_price.mean() * (1 - 1e-9) >= max(other_prices) * (1 - 1e-9)


def test_a_robust_menu_survives_being_a_little_wrong(menus: dict[str, Json]) -> None:
    """Near its market its tiers beat the best single plans on average; all profits are computed independently."""
    menu, valuation = menus["spread"], valuation_of(read_market(SPREAD))
    caps = [len(TOKENS) if (cap := tier["conversation_tokens_max"]) is None else cap // 20 for tier in menu["tiers"]]
    offer = Offer(np.array(caps), np.array([tier["price_nanousd"] for tier in menu["tiers"]]))
    near = Neighbourhood().around(valuation)
    shares = [crowd_of([(1.0, one, sigma, 0.0)]).profit(offer) / single_plan(one, sigma) for _, one, sigma in near]

    assert min(shares) > 0.97
    assert np.mean(shares) > 1
    assert menu["totals"]["profit_nanousd"] > 0.98 * menu["totals"]["tiers_profit_nanousd"][-1]


def test_the_menu_of_an_estimate_survives_urgency_that_is_wrong_by_a_tenth() -> None:
    """Three kinds, a value uncertain by 1 %; a menu without aims nearby kept 0.53 of the single plan there."""
    survival = np.round(1 - np.cumsum(LOGNORMAL), 6).clip(0).tolist()
    draws = [
        {
            "value_nanousd": 1e8 * times,
            "tokens_per_s": 50,
            "first_token_s": 0.4,
            "share": [3, 4, 3],
            "survival": survival,
        }
        for times in (0.99, 1.0, 1.01)
    ]
    description = BASE | {
        "answer_length": {"family": "kaplan_meier", "tokens": TOKENS, "survival": survival},
        "cap_tokens_max": TOKENS[-1],
        "estimate": {"tiers": 3, "value_understated_by": 0, "draws": draws},
    }

    menu = menu_of(description, robust=Neighbourhood())

    robust = menu["certificate"]["robust"]
    shares = {one["market"]: one["profit_nanousd"] / one["single_plan_profit_nanousd"] for one in robust["markets"]}
    assert shares["urgency +10%"] > 0.97
    assert min(shares.values()) > 0.94
    assert robust["held"]["elsewhere_share"] == pytest.approx(min(list(shares.values())[1:8]), abs=1e-6)
    assert robust["held"]["claims"] == {"as_taken": False, "elsewhere": False, "on_average": False}
    assert verify(menu).ok, verify(menu).violation


def test_what_no_menu_earns_that_is_held_to_something_elsewhere() -> None:
    """Three types, six steps: no menu of up to two tiers, at any price that matters, exceeds the bounds."""
    description = markets.market(
        types=markets.types([0.05, 0.3, 0.9], [0.3, 0.4, 0.3]),
        answer_length={
            "family": "table",
            "tokens": [20, 40, 60, 80, 100, 120],
            "probability": [0.3, 0.2, 0.2, 0.1, 0.1, 0.1],
        },
        value_nanousd=10_000,
    )
    around = Neighbourhood(pace=0, length=0, urgency=0.1, value_sigma=0, single_share_min=0.93)
    robust = robust_of(read_market(description), around, 2)
    least = np.array([one.least for one in robust.near])
    every = robust.crowd.worth
    best = 0.0
    for few in ((cap,) for cap in range(1, 7)):
        for price in np.floor(every[:, few[0]]).astype(int):
            best = max(best, held_profit(robust.profits(Offer(np.array(few), np.array([price]))), least))
    for low, high in combinations(range(1, 7), 2):
        for first, type_at in product(np.unique(np.floor(every[:, low])).astype(int), range(len(every))):
            rise = every[type_at, high] - every[type_at, low]
            for second in (int(every[type_at, high]), int(first + rise)):
                offer = cleaned(np.array([low, high]), np.array([first, second]))
                best = max(best, held_profit(robust.profits(offer), least) if len(offer.caps) else 0.0)

    assert robust.exact is not None
    assert 0 < best <= as_taken_at_most(robust.near, robust.exact, robust.most) < robust.exact


def held_profit(profits: Any, least: Any) -> float:
    """Return the profit as taken of a menu that reaches the least profits elsewhere, else 0."""
    return float(profits[0]) if np.all(profits[1:] >= least[1:]) else 0.0


def test_no_mechanism_of_three_kinds_keeps_most_of_the_single_plan_both_ways() -> None:
    """Urgency a tenth up or down: with these weights the full menu of all six types earns less than 0.97 of both."""
    base = valuation_of(read_market(BASE))
    up, down = more_urgent(base, 1.1), more_urgent(base, 0.9)
    weights = (0.2324, 0.7676)
    shares = [0.3, 0.4, 0.3]
    six = BASE | {
        "types": markets.types(
            np.concatenate([up.urgency_per_s, down.urgency_per_s]),
            np.outer(weights, shares).ravel(),
        )
    }
    menu = optimal_menu(read_market(six), tiers=None, bill="conversation", names=None, created="x")
    promised = sum(0.97 * weight * single_plan(one, 0) for weight, one in zip(weights, (up, down), strict=True))

    assert menu["certificate"]["claim"] == "the most profitable of all mechanisms"
    assert menu["certificate"]["bound"]["upper_bound_nanousd"] < promised


def test_no_mechanism_of_three_kinds_that_loses_little_as_taken_keeps_most_of_the_single_plan_of_more_urgent_kinds() -> (
    None
):
    """With at least 0.98 as taken, less than 0.88 of the single plan is kept at 10 % higher urgency."""
    base = valuation_of(read_market(BASE))
    up, weight = more_urgent(base, 1.1), 11.3
    weights, shares = np.array([weight, 1]) / (weight + 1), [0.3, 0.4, 0.3]
    six = BASE | {
        "types": markets.types(
            np.concatenate([base.urgency_per_s, up.urgency_per_s]), np.outer(weights, shares).ravel()
        )
    }
    exact, together = (
        optimal_menu(read_market(description), tiers=None, bill="conversation", names=None, created="x")
        for description in (BASE, six)
    )
    at_most = together["certificate"]["bound"]["upper_bound_nanousd"] * (weight + 1)

    assert together["certificate"]["claim"] == "the most profitable of all mechanisms"
    assert at_most - weight * 0.98 * exact["totals"]["profit_nanousd"] < 0.88 * single_plan(up, 0)


def test_no_mechanism_of_three_kinds_earns_as_much_on_average_as_single_plans_that_know() -> None:
    """With urgency or pace off, up or down, the average share of each market's single plan is below 0.991."""
    base = valuation_of(read_market(BASE))
    off = [more_urgent(base, factor) for factor in (1.02, 0.98, 1.1, 0.9)]
    weights = np.array([1 / (len(off) * single_plan(one, 0)) for one in off])
    shares = weights / weights.sum()
    twelve = BASE | {
        "types": markets.types(
            np.concatenate([one.urgency_per_s for one in off]), np.outer(shares, [0.3, 0.4, 0.3]).ravel()
        )
    }
    menu = optimal_menu(read_market(twelve), tiers=None, bill="conversation", names=None, created="x")

    assert menu["certificate"]["claim"] == "the most profitable of all mechanisms"
    assert menu["certificate"]["bound"]["upper_bound_nanousd"] * weights.sum() < 0.991


@pytest.mark.parametrize("field", ["all", "as_taken_share", "elsewhere_share_at_most"])
def test_what_a_menu_is_held_to_cannot_be_changed_unseen(menus: dict[str, Json], field: str) -> None:
    menu = menus["three"]
    certificate, robust = menu["certificate"], menu["certificate"]["robust"]
    better = {"all": True, "as_taken_share": 0.98, "elsewhere_share_at_most": 1.0}
    changed = robust | {"held": robust["held"] | {field: better[field]}}
    forged = menu | {"certificate": certificate | {"robust": changed}}
    forged["certificate"]["digests"] = digests(forged)

    assert verified(menu).ok, verified(menu).violation
    assert f"certificate.robust.held.{field}" in (verified(forged).violation or "")


def test_changed_markets_keep_their_chances() -> None:
    """Later answers are as likely; longer answers end later, and no answer is lost where the last step means no cap."""
    valuation = valuation_of(read_market(BASE))

    later = BASE | {"tokens_per_s": BASE["tokens_per_s"] / 1.02, "first_token_s": BASE["first_token_s"] * 1.02}
    for family in ("exponential", "hyperbolic", "linear", "sunk_linear"):
        delay = {"delay": {"family": family}}
        caps, of = np.array([3, 40, 300]), valuation_of(read_market(BASE | delay))
        assert worth_at(more_urgent(of, 1.02), caps) == pytest.approx(
            worth_at(valuation_of(read_market(later | delay)), caps)
        )
    changed = longer(valuation, 1.02).steps
    assert changed.probability.sum() == pytest.approx(1)
    assert np.dot(changed.probability, TOKENS) > np.dot(valuation.steps.probability, TOKENS)
    assert longer(valuation, 1.0).steps.probability == pytest.approx(valuation.steps.probability)
