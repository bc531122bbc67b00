"""The profits that robust menus keep in many markets, and an independent search for the profits that menus could keep.

``make recovery ARGS="--only robust"`` prints both: the tables in pricing/README.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import differential_evolution

from pricing.estimate.as_market import market_of, priced
from pricing.market.answers import Floats
from pricing.market.estimated import estimated
from pricing.market.market import Market, read_market
from pricing.market.neighbourhood import Neighbourhood, more_urgent
from pricing.market.worth import Valuation
from pricing.mechanism.demand import crowd_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.offers import Offer, cleaned
from pricing.mechanism.uncertainty import profit_of
from pricing.menus.held import as_taken_at_most, elsewhere_at_most
from pricing.menus.menus import optimal_menu
from pricing.menus.objectives import Further
from pricing.menus.robust import Robust, best_single, robust_of
from tests.pricing import markets
from tests.pricing.estimate.recovery import THREE, Case, plainly, truth_of
from tests.pricing.estimate.violations import VIOLATIONS, fitted
from tests.pricing.menus.test_objectives import BASE

Json = dict[str, Any]

TIERS = 3
SHARES = (0.9, 0.92, 0.94, 0.96, 0.97)
"""Least shares of the single plan elsewhere, for each of which the highest profit as taken is searched."""


def kinds(urgency: list[float], share: list[float]) -> Json:
    return BASE | {"types": markets.types(urgency, share)}


def uniform(low: float, high: float) -> Json:
    spread = {"family": "uniform", "low_per_s": low, "high_per_s": high, "points": 30}
    return {name: field for name, field in BASE.items() if name != "types"} | {"urgency": spread}


MARKETS = {
    "one kind: .05": kinds([0.05], [1.0]),
    "two: .005, .3": kinds([0.005, 0.3], [0.7, 0.3]),
    "two: .01, .15": kinds([0.01, 0.15], [0.5, 0.5]),
    "two: .02, .06": kinds([0.02, 0.06], [0.4, 0.6]),
    "three: .01, .05, .15": BASE,
    "three: .005, .02, .3": kinds([0.005, 0.02, 0.3], [0.2, 0.5, 0.3]),
    "three: .03, .05, .08": kinds([0.03, 0.05, 0.08], [0.3, 0.4, 0.3]),
    "four: .01, .03, .08, .2": kinds([0.01, 0.03, 0.08, 0.2], [0.25] * 4),
    "four, lognormal market": markets.lognormal(),
    "five: .005 to .3": kinds([0.005, 0.02, 0.06, 0.12, 0.3], [0.2] * 5),
    "thirty, uniform .005 to .2": uniform(0.005, 0.2),
    "thirty, uniform .033 to .067": uniform(1 / 30, 2 / 30),
}


def robust_menu(description: Json) -> Json:
    further = Further(robust=Neighbourhood())
    return optimal_menu(
        read_market(description), tiers=TIERS, bill="conversation", names=None, created="x", further=further
    )


def most_as_taken(robust: Robust, share: float, seed: int = 0) -> float:
    """Return the largest share of the exact menu's profit that keeps ``share`` of each other market's single plan.

    The search is differential evolution over caps and prices, with a random start and random steps.
    """
    assert robust.exact is not None
    exact, last = robust.exact, robust.crowd.worth.shape[1] - 1
    singles = np.array([market.single for market in robust.near])
    highest = float(robust.crowd.worth[:, last].max())

    def loss(place: Floats) -> float:
        caps = np.maximum(1, np.round(last * place[:TIERS] ** 2).astype(np.int64))
        caps[-1] = last
        offer: Offer = cleaned(caps, np.sort(np.floor(highest * place[TIERS:]).astype(np.int64)))
        if not len(offer.caps):
            return 1.0
        profits = robust.profits(offer)
        missing = np.maximum(0.0, share - (profits / singles)[1:]).sum()
        return float(20 * missing - profits[0] / exact)

    found = differential_evolution(
        loss, [(0.0, 1.0)] * (2 * TIERS), maxiter=400, popsize=12, seed=seed, tol=1e-10, polish=False
    )
    return max(0.0, -float(found.fun))


def of_estimates(seeds: int) -> None:
    """Print the profits of estimates' menus in the true market and near it, with the claims as aims and without."""
    print(
        "\n| estimate of three kinds, 600 × 30 | claims | of the optimum | urgency +10 %, of the single plan | −10 % |"
    )
    print("|---|---|---|---|---|")
    for seed in range(seeds):
        estimate = fitted(VIOLATIONS["none: observed"], seed)
        market = read_market(market_of(estimate, priced(estimate)))
        truth = truth_of(Case(THREE, plainly), estimate.length.identified_to_tokens)
        tiers = market_tiers(market) or TIERS
        for name, around in (("aims", Neighbourhood()), ("none", Neighbourhood(single_share_min=0.0, loss_max=0.999))):
            further = Further(robust=around)
            menu = optimal_menu(market, tiers=tiers, bill="conversation", names=None, created="x", further=further)
            caps = [tier["conversation_tokens_max"] or 10**9 for tier in menu["tiers"]]
            prices = np.array([tier["price_nanousd"] for tier in menu["tiers"]], dtype=np.float64)
            earned = [
                profit_of(there, np.array(caps), prices) / beside
                for there, beside in (
                    (truth, full_menu(truth).profit),
                    *((off, single_of(off)) for off in (more_urgent(truth, 1.1), more_urgent(truth, 0.9))),
                )
            ]
            print(f"| seed {seed} | {name} | {' | '.join(f'{share:.3f}' for share in earned)} |", flush=True)


def market_tiers(market: Market) -> int | None:
    beside = estimated(market)
    assert beside is not None
    return beside.tiers


def single_of(valuation: Valuation) -> float:
    return best_single(crowd_of([(1.0, valuation, 0.0, 0.0)]))[1]


def of_robust(seeds: int) -> None:
    """Print what robust menus keep, and the highest profit as taken of any menu with least shares elsewhere."""
    near = [
        name for name, *_ in Neighbourhood().around(robust_of(read_market(BASE), Neighbourhood(), 1).near[0].valuation)
    ]
    print(
        f"| market | as taken, of the exact menu | at most | {' | '.join(near[1:])} | on average | least, at most | claims | one price |"
    )
    print("|---" * (len(near) + 6) + "|")
    for name, description in MARKETS.items():
        certificate = robust_menu(description)["certificate"]["robust"]
        held = certificate["held"]
        shares = [
            f"{one['profit_nanousd'] / one['single_plan_profit_nanousd']:.3f}" for one in certificate["markets"][1:]
        ]
        most, least = (held[f"{one}_share_at_most"] for one in ("as_taken", "elsewhere"))
        claims = ", ".join(claim for claim, is_made in held["claims"].items() if is_made) or "–"
        print(
            f"| {name} | {held['as_taken_share']:.3f} | {'–' if most is None else f'{most:.3f}'} | {' | '.join(shares)} "
            f"| {held['elsewhere_share_on_average']:.3f} | {'–' if least is None else f'{least:.3f}'} | {claims} "
            f"| {certificate['one_price']['share_on_average']:.3f} |",
            flush=True,
        )
    print("\n| market | kept elsewhere | as taken, found | as taken, at most |\n|---|---|---|---|")
    for name in ("three: .01, .05, .15", "four, lognormal market", "five: .005 to .3"):
        robust = robust_of(read_market(MARKETS[name]), Neighbourhood(), TIERS)
        assert robust.exact is not None
        for share in SHARES:
            held_to = [replace(one, least=share * one.single) for one in robust.near]
            found = max(most_as_taken(robust, share, seed) for seed in range(3))
            bound = as_taken_at_most(held_to, robust.exact, TIERS) / robust.exact
            possible = elsewhere_at_most(robust.near, TIERS)
            most = (
                f"{bound:.3f}" if possible is None or possible >= share else f"none: {possible:.3f} at most elsewhere"
            )
            print(f"| {name} | {share} | {found:.3f} | {most} |", flush=True)
    of_estimates(seeds)
