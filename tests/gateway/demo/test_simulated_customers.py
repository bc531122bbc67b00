"""The demo's customers choose as their urgency says, from a menu that was computed for them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from gateway.cli.demo import MARKET, NAMES, PACKAGES
from gateway.demo.simulated_customers import Person, law_of, people_of, visitor_of
from gateway.errors import StartupError
from gateway.simulator.model_server import Law
from pricing.market.market import read_market
from pricing.menus.menu import Menu, Tier
from pricing.menus.menus import optimal_menu

GIVEN: dict[str, Any] = json.loads((PACKAGES / MARKET).read_text())
SAMPLE = read_market(GIVEN)
LAW = law_of(SAMPLE)
SOMEONE = Person("someone", 0.12, 20_000_000, conversations_per_s=1, is_streaming=False, chooses_each_time=False)


@pytest.mark.parametrize("cap", [1, 50, 325, None])
@pytest.mark.parametrize("urgency", [0.0, 0.02, 0.3, 5.0])
def test_worth_is_the_sum_it_is_said_to_be(cap: int | None, urgency: float) -> None:
    """The closed form equals adding up value·e^(-r·t(n))·f(n) token by token."""
    mean = LAW.mean_tokens
    terms = (
        math.exp(-urgency * (LAW.first_token_s + n / LAW.tokens_per_s))
        * (math.exp(-(n - 1) / mean) - math.exp(-n / mean))
        for n in range(1, (cap or 20_000) + 1)
    )

    worth = replace(SOMEONE, urgency_per_s=urgency).worth(cap, LAW)

    assert worth == pytest.approx(20_000_000 * math.fsum(terms), rel=1e-9)


@pytest.mark.parametrize("tiers", [1, 2, 3, 4])
def test_customers_take_what_the_menu_assigns_to_them(tiers: int) -> None:
    """Choosing for themselves from what any visitor sees, all take the tier that the certificate says they take."""
    menu = optimal_menu(SAMPLE, tiers=tiers, bill="conversation", names=None, created="2026-01-01T00:00:00Z")
    sold = Menu.from_json(menu).tiers

    chosen = {person.urgency_per_s: person.choose(sold, LAW) for person in people_of(SAMPLE)}

    assert {rate: tier.name if tier else None for rate, tier in chosen.items()} == {
        one["urgency_per_s"]: one["tier"] for one in menu["assignment"]
    }
    assert visitor_of(SAMPLE).choose(sold, LAW) is not None


def test_the_sample_menu_has_a_tier_for_each_name() -> None:
    """The demo's names are as many as the tiers of its menu, the smallest first."""
    menu = optimal_menu(SAMPLE, tiers=len(NAMES), bill="conversation", names=NAMES, created="2026-01-01T00:00:00Z")

    assert [tier["name"] for tier in menu["tiers"]] == list(NAMES)
    assert menu["totals"]["profit_nanousd"] > menu["totals"]["single_plan_profit_nanousd"]


@pytest.mark.parametrize("shares", [[0.3, 0.3, 0.25, 0.15], [0.97, 0.01, 0.01, 0.01]])
def test_conversations_are_shared_as_the_market_says(shares: list[float]) -> None:
    """Whatever the number of a type's customers comes to, their conversations are its share of all."""
    types = [{**one, "share": share} for one, share in zip(GIVEN["types"], shares, strict=True)]
    people = people_of(read_market(GIVEN | {"types": types}))

    total = math.fsum(person.conversations_per_s for person in people)
    for one in types:
        rates = [person.conversations_per_s for person in people if person.urgency_per_s == one["urgency_per_s"]]
        assert rates
        assert math.fsum(rates) / total == pytest.approx(one["share"])
    assert len({person.name for person in people}) == len(people)


def test_some_choose_for_their_account_and_some_each_time() -> None:
    """Both ways to choose are shown, by callers who stream and by callers who do not."""
    people = people_of(SAMPLE)

    assert {(person.chooses_each_time, person.is_streaming) for person in people} == {
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    }


def test_the_model_is_the_markets() -> None:
    """Pace, first token and mean length are those that the menu was computed for."""
    assert Law(tokens_per_s=50, mean_tokens=400, first_token_s=0.3) == LAW

    table = {"family": "table", "tokens": [10], "probability": [1.0]}
    with pytest.raises(StartupError):
        law_of(read_market(GIVEN | {"answer_length": table}))


def test_nobody_buys_what_costs_more_than_it_is_worth() -> None:
    """Where every price is above the worth, and where there is nothing to buy, the answer is no tier."""
    dear = [Tier(f"t{cap}", price_nanousd=20_000_001, conversation_tokens_max=cap) for cap in (10, 1000)]

    assert SOMEONE.choose(dear, LAW) is None
    assert SOMEONE.choose([], LAW) is None


def test_of_two_equally_good_tiers_the_longer_one_is_taken() -> None:
    """Caps beyond what anyone reaches are worth the same; the larger one is no worse."""
    tiers = [
        Tier("long", conversation_tokens_max=10**6),
        Tier("longest"),
        Tier("longer", conversation_tokens_max=10**7),
    ]

    chosen = SOMEONE.choose(tiers, LAW)

    assert chosen is not None
    assert chosen.name == "longest"
