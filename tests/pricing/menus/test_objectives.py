"""Other objectives of an operator: customers' surplus, everyone served, terms, few worse off, robust menus."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest

from pricing.bounds.bound import upper_bound
from pricing.bounds.multipliers import multipliers_for
from pricing.certificate import verify
from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.demand import crowd_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.offers import Offer
from pricing.mechanism.tiers import best_tiers
from pricing.menus.menu import NotAMenu
from pricing.menus.menus import digests, optimal_menu, version_of
from pricing.menus.objectives import Further, Term, WorseOff
from tests.pricing import markets, oracles

Json = dict[str, Any]

TOKENS = list(range(20, 6_001, 20))
REACHED = [0.5 * (1 + math.erf(math.log(n / 400) / 0.8 / 2**0.5)) for n in TOKENS]
LOGNORMAL = np.diff([0.0, *REACHED])
BASE = markets.market(
    types=markets.types([0.01, 0.05, 0.15], [0.3, 0.4, 0.3]),
    answer_length={"family": "table", "tokens": TOKENS, "probability": (LOGNORMAL / LOGNORMAL.sum()).tolist()},
    value_nanousd=100_000_000,
)


def menu_of(market: Json, tiers: int | None = 3, **wishes: Any) -> Json:
    further = Further(**wishes)
    menu = optimal_menu(read_market(market), tiers=tiers, bill="conversation", names=None, created="x", further=further)
    return json.loads(json.dumps(menu))


def every_menu(valuation: Valuation) -> dict[int, float]:
    """Return the best aim over all menus of falling caps, by number of caps, by trying each."""
    worth, cost = oracles.tables(valuation)
    kept, best = 1 - valuation.surplus_weight, {0: 0.0}
    if valuation.everyone:
        best = {}
    for falling in combinations_with_replacement(range(worth.shape[1] - 1, -1, -1), len(worth)):
        if valuation.everyone and falling[-1] == 0:
            continue
        price, aim = 0.0, 0.0
        for i in range(len(worth) - 1, -1, -1):
            price += worth[i, falling[i]] - worth[i, falling[i + 1] if i + 1 < len(worth) else 0]
            own = kept * price + valuation.surplus_weight * worth[i, falling[i]] - cost[i, falling[i]]
            aim += valuation.share[i] * own
        used = len(set(falling) - {0})
        best[used] = max(best.get(used, -np.inf), aim)
    return best


def test_surplus_that_counts_and_everyone_served_are_exact() -> None:
    """The comparison is with every menu of caps, for several weights, with and without cost; the bound holds."""
    random = np.random.default_rng(3)
    for trial in range(30):
        description = markets.random_market(random, types_max=4, steps_max=5, cost=bool(trial % 2))
        valuation = replace(
            valuation_of(read_market(description)),
            surplus_weight=float(random.choice([0.2, 0.5, 0.9, 1.0])),
            everyone=bool(trial % 3 == 0),
        )
        every, full = every_menu(valuation), full_menu(valuation)
        multipliers = multipliers_for(valuation, full)

        assert full.profit == pytest.approx(max(every.values()), abs=1e-12)
        for used, menu in enumerate(best_tiers(valuation, len(valuation.share)), 1):
            among = [aim for tiers, aim in every.items() if tiers <= used]
            assert menu.profit == pytest.approx(max(among, default=-np.inf), abs=1e-12)
        assert multipliers.wrong(valuation.share * (1 - valuation.surplus_weight)) is None
        assert upper_bound(valuation, multipliers) >= full.profit - 1e-12


@pytest.mark.parametrize(
    "wishes",
    [
        {"surplus_weight": 0.5},
        {"everyone": True},
        {"surplus_weight": 0.3, "everyone": True},
        {"terms": (Term(1, price_nanousd_max=3_000_000), Term(3, surplus_nanousd_min=10_000_000))},
    ],
    ids=["surplus", "everyone", "both", "terms"],
)
def test_what_is_asked_for_is_in_the_certificate(wishes: Json) -> None:
    """The file verifies; with fewer or more wishes and new hashes it does not."""
    menu = menu_of(BASE, **wishes)
    plain, more = copy.deepcopy(menu), copy.deepcopy(menu)
    for name in ("surplus_weight", "everyone", "terms"):
        plain["certificate"]["wishes"].pop(name, None)
    more["certificate"]["wishes"]["surplus_weight"] = 0.9

    assert verify(menu).ok, verify(menu).violation
    for forged in (plain, more):
        forged["version"] = version_of(forged["market"], forged["certificate"]["wishes"])
        forged["certificate"]["digests"] = digests(forged)
        assert not verify(forged).ok


def test_terms_are_kept() -> None:
    """With a price ceiling and a floor on a tier's customers' surplus, profit is still below the bound."""
    menu = menu_of(BASE, terms=(Term(1, price_nanousd_max=3_000_000), Term(3, surplus_nanousd_min=10_000_000)))
    worth = crowd_of([(1.0, valuation_of(read_market(BASE)), 0.0, 0.0)]).worth

    assert menu["tiers"][0]["price_nanousd"] <= 3_000_000
    assert worth[0, -1] - menu["tiers"][2]["price_nanousd"] >= 10_000_000
    assert menu["totals"]["profit_nanousd"] <= menu["certificate"]["bound"]["upper_bound_nanousd"]
    with pytest.raises(NotAMenu, match="No menu"):
        menu_of(BASE, terms=(Term(1, surplus_nanousd_min=10**12),))


def test_at_most_so_many_are_worse_off_than_today() -> None:
    """Today's prices are a tenth below the most profitable prices: nobody may lose, and today's profit is kept."""
    best = menu_of(BASE)
    caps = tuple(tier["conversation_tokens_max"] for tier in best["tiers"])
    prices = tuple(int(tier["price_nanousd"] * 0.9) for tier in best["tiers"])
    menu = menu_of(BASE, worse_off=WorseOff(0.0, caps, prices))

    assert menu["certificate"]["worse_off_share"] == 0
    assert menu["totals"]["profit_nanousd"] >= 0.9 * best["totals"]["profit_nanousd"] * (1 - 1e-6)
    assert verify(menu).ok


def test_shares_of_values_that_differ_are_those_of_drawn_customers() -> None:
    """100,000 drawn customers choose freely: shares agree to three standard errors, with and without tastes."""
    random = np.random.default_rng(1)
    valuation = valuation_of(read_market(BASE))
    offer = Offer(np.array([7, 50, 300]), np.array([6_000_000, 53_000_000, 62_000_000]))
    multiple = np.exp(0.2 * random.normal(size=(100_000, 1)) - 0.02)
    for taste in (0.0, 2e6):
        crowd = crowd_of([(1.0, valuation, 0.2, taste)])
        for row, shares in enumerate(crowd.takers(offer)):
            gains = np.concatenate((np.zeros_like(multiple), multiple * crowd.worth[row, offer.caps] - offer.prices), 1)
            if taste:
                gains += random.gumbel(scale=taste, size=gains.shape)
            chosen = np.bincount(gains.argmax(axis=1), minlength=4)[1:] / len(multiple)
            assert np.abs(chosen - shares).max() < 3 * 0.5 / len(multiple) ** 0.5 + 0.002


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        ({"surplus_weight": 2}, "surplus_weight is a number from 0 to 1"),
        ({"everyone": 1}, "everyone is true or false"),
        ({"terms": {}}, "terms is a list"),
        ({"terms": [{"tier": 0}]}, "1 for the smallest"),
        ({"terms": [{"tier": 1}]}, "price_nanousd_max or surplus"),
        ({"worse_off": {"share_max": 0.1, "today": []}}, "a list of tiers"),
        ({"robust": {"pace": 0.1}}, "robust."),
        ({"robust": [1]}, "robust is an object"),
        ({"names": [None, []]}, "None is not a tier's name"),
    ],
)
def test_malformed_wishes_in_a_file_are_one_sentence(wishes: Json, sentence: str) -> None:
    menu = menu_of(BASE)
    menu["certificate"]["wishes"] |= wishes
    menu["version"] = version_of(menu["market"], menu["certificate"]["wishes"])
    menu["certificate"]["digests"] = digests(menu)

    assert sentence in (verify(menu).violation or "")
