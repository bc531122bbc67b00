"""What a drafted menu has to keep when callers send cut answers back and buy on, before anyone is sold it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.admin.menus.run_input import RunInput
from gateway.repricing.drafting import _held_back, _menu, _refusal, _tiers
from pricing.certificate import verify
from pricing.market.market import read_market
from pricing.menus.menu import Menu
from pricing.menus.menus import optimal_menu
from tests.pricing import markets

Json = dict[str, Any]


def drafted(**changes: Any) -> Json:
    """Return a menu of the market in which a small tier bought again and again is best for everyone."""
    arguments = {"tiers": None, "bill": "conversation", "names": None, "created": "x"} | changes
    return optimal_menu(read_market(markets.lognormal()), **arguments)


def refusal_of(menu: Json, gains: tuple[float, ...] = (1.0, 2.0)) -> str | None:
    return _refusal(verify(menu), menu, {"gain_over_single_plan_nanousd": list(gains)}, 0.95)


def test_a_draft_that_resuming_undoes_is_refused() -> None:
    """Of 0.42 it would keep 0.18; made for callers who resume, it keeps more than the best single plan."""
    once, lasting = drafted(), drafted(tiers=2, objective="profit_if_resumed")

    assert "profit_if_resumed" in (refusal_of(once) or "")
    assert refusal_of(lasting) is None
    assert refusal_of(drafted(tiers=1)) is None


def test_a_draft_is_refused_for_its_certificate_or_for_too_little_gain_whatever_it_keeps_if_resumed() -> None:
    lasting = drafted(tiers=1)
    forged = {**lasting, "totals": {**lasting["totals"], "profit_nanousd": 1}}

    assert refusal_of(forged) == verify(forged).violation
    assert "does not earn more than the best single plan" in (refusal_of(lasting, gains=(2.0, -1.0)) or "")
    assert "does not earn more than the best single plan" in (refusal_of(lasting, gains=(0.0, 0.0)) or "")


def test_a_draft_that_resuming_brings_below_the_single_plan_is_not_published_by_itself() -> None:
    """Whoever schedules runs with publish: now is not asked, so the draft waits to be looked at."""
    once = drafted()
    totals = once["totals"]

    assert totals["profit_if_resumed_nanousd"] < totals["single_plan_profit_nanousd"]
    assert "less than the best single plan" in (_held_back(None, once, Menu.from_json(once), {}, {}) or "")


@pytest.mark.parametrize("factor", ["cap_factor", "price_factor"])
def test_a_draft_that_earns_more_and_moves_too_far_in_caps_or_in_prices_is_not_published_by_itself(factor: str) -> None:
    """From one tier without a cap to two, of which the smaller is what its customers would take."""
    draft, in_force = drafted(tiers=2, objective="profit_if_resumed"), Menu.from_json(drafted(tiers=1))
    estimate = SimpleNamespace(length=SimpleNamespace(identified_to_tokens=10_000))
    comparison = {"profit_nanousd": {"draft": {"mean": 2.0}, "in_force": {"mean": 1.0}}, "becomes": {"t1": "t1"}}
    freely = {"cap_factor_max": 1e6, "price_factor_max": 1e6}

    assert _held_back(estimate, draft, in_force, comparison, freely) is None
    too_far = _held_back(estimate, draft, in_force, comparison, {**freely, f"{factor}_max": 1.01})
    assert "is the most at once" in (too_far or "")
    short = SimpleNamespace(length=SimpleNamespace(identified_to_tokens=10))
    assert _held_back(short, draft, in_force, comparison, {**freely, "cap_factor_max": 1.01}) is None
    comparison["profit_nanousd"]["draft"]["mean"] = 1.0
    assert "earns as much" in (_held_back(estimate, draft, in_force, comparison, freely) or "")


def test_where_lengths_go_with_urgency_a_single_tier_is_drafted() -> None:
    """The mechanism takes lengths to be the same for every type; a single price loses least where they are not."""
    assert _tiers(SimpleNamespace(lengths_differ=True), None, 3) == 1


def test_a_draft_is_billed_as_the_menu_in_force_and_takes_over_the_names_of_as_many_tiers() -> None:
    market = read_market(markets.lognormal())
    in_force = Menu.from_json(drafted(tiers=2, bill="subscription", names=["bronze", "silver"]))

    of_two, of_one = (_menu(market, tiers, in_force, "x", "profit") for tiers in (2, 1))

    assert [tier["name"] for tier in of_two["tiers"]] == ["bronze", "silver"]
    assert [tier["name"] for tier in of_one["tiers"]] == ["t1"]
    assert {Menu.from_json(menu).bill for menu in (of_two, of_one)} == {"subscription"}
    assert Menu.from_json(_menu(market, 2, None, "x", "profit")).bill == "conversation"


def test_what_a_run_may_aim_at() -> None:
    """A run that is scheduled leaves it out, and aims at profit."""
    assert RunInput.model_validate({}).objective == "profit"
    assert RunInput.model_validate({"objective": "profit_if_resumed"}).objective == "profit_if_resumed"
    with pytest.raises(ValidationError, match="objective"):
        RunInput.model_validate({"objective": "growth"})
