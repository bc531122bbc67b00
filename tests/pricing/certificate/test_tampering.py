"""Random tampering with menus of every objective and with limits is detected, even with recomputed hashes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from pricing.bounds.bound import Multipliers
from pricing.certificate import Verdict, verify
from pricing.market.market import Market, read_market
from pricing.market.neighbourhood import Neighbourhood
from pricing.menus.menus import digests, optimal_menu, version_of, with_limits
from pricing.menus.objectives import Further, Term, WorseOff
from pricing.menus.request import Wishes
from pricing.menus.solving import Solution, solve
from tests.pricing import markets

Json = dict[str, Any]

LIMITS = {"t1": {"requests_per_minute": 10, "period_tokens_max": 5_000}}

ASKED: dict[str, Json] = {
    "profit": {},
    "profit if resumed": {"objective": "profit_if_resumed"},
    "customers' surplus": {"further": Further(surplus_weight=0.5)},
    "everyone": {"further": Further(everyone=True)},
    "robust": {"further": Further(robust=Neighbourhood())},
    "terms": {"further": Further(terms=(Term(1, price_nanousd_max=4_000_000),))},
    "worse off": {"further": Further(worse_off=WorseOff(0.2, (300, None), (3_000_000, 8_000_000)))},
    "subscription": {"bill": "subscription"},
}

FAR = 1e-4
"""Figures are changed by more than this; rounding may change a figure by a hundred-thousandth of a nano-unit."""

TAMPERED = 40
"""How many values are changed in each menu, one at a time."""


@cache
def menu_of(name: str) -> Json:
    """Return a menu of two tiers with limits, for answers with a rising hazard; callers must not change it."""
    tokens = list(range(50, 1_001, 50))
    chances = np.diff([1 - np.exp(-((n / 500) ** 2)) for n in (0, *tokens)]).tolist()
    market = markets.market(
        answer_length={"family": "table", "tokens": tokens, "probability": chances}, cap_tokens_max=1_000
    )
    wished = {"tiers": 2, "bill": "conversation", "names": None, "created": "2025-01-01T00:00:00Z"} | ASKED[name]
    return json.loads(json.dumps(with_limits(optimal_menu(read_market(market), **wished), LIMITS)))


def rehashed(menu: Json) -> Json:
    """Return the menu with all hashes recomputed, as a careful forger would."""
    menu["version"] = version_of(menu["market"], menu["certificate"]["wishes"])
    menu["certificate"]["digests"] = digests(menu)
    return menu


@cache
def solved(
    market: str, wishes: str, patient: tuple[int, ...], urgent: tuple[int, ...], flow: tuple[float, ...]
) -> Solution:
    """Return the solution of a market and wishes, both as JSON, with the multipliers of a file."""
    multipliers = Multipliers(np.array(patient, np.int64), np.array(urgent, np.int64), np.array(flow, np.float64))
    return solve(read_market(json.loads(market)), Wishes.from_json(json.loads(wishes)), multipliers)


def verified(menu: Json) -> Verdict:
    """Return the verdict of ``verify``, which here solves equal inputs only once: most forgeries change none of them."""

    def once(market: Market, wished: Wishes, multipliers: Multipliers) -> Solution:
        weights = (multipliers.patient.tolist(), multipliers.urgent.tolist(), multipliers.flow.tolist())
        return solved(market.given, json.dumps(wished.to_json()), *(tuple(one) for one in weights))

    return verify(menu, once)


def outputs(menu: Json) -> Iterator[tuple[Any, Any]]:
    """Yield the container and key of every computed value: no input, no hash, no time of creation."""
    parts = [menu["tiers"], menu["assignment"], menu["totals"]]
    parts += [value for name, value in menu["certificate"].items() if name not in ("wishes", "digests")]
    yield from (
        (menu["certificate"], name) for name, value in menu["certificate"].items() if not isinstance(value, dict | list)
    )
    while parts:
        part = parts.pop()
        for place in part if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            if isinstance(part[place], dict | list):
                parts.append(part[place])
            else:
                yield part, place


def other(value: Any, random: np.random.Generator) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if value is None:
        return int(random.integers(1, 1_000))
    factor = float(np.exp(random.normal(0, 1)))
    if isinstance(value, int):
        return value + int(random.choice([-1, 1])) * max(1, round(abs(value) * abs(factor - 1)))
    return value * factor if abs(value * factor - value) > FAR else value + 1.0


@pytest.mark.parametrize("name", list(ASKED))
def test_no_figure_of_any_objective_can_be_tampered_with(name: str) -> None:
    menu, random = menu_of(name), np.random.default_rng(1)
    assert verify(menu).ok
    places = len(list(outputs(menu)))

    for at in random.choice(places, min(TAMPERED, places), replace=False).tolist():
        forged = copy.deepcopy(menu)
        holder, place = list(outputs(forged))[at]
        holder[place] = other(holder[place], random)

        verdict = verified(rehashed(forged))
        assert not verdict.ok, (place, holder[place])
        assert verdict.violation


@pytest.mark.parametrize("name", [one for one in ASKED if one != "profit"])
def test_a_menu_cannot_pass_for_one_of_another_objective(name: str) -> None:
    """The wishes are exchanged with those of the most profitable menu, in both directions, with new hashes."""
    plain, other = menu_of("profit"), menu_of(name)

    for menu, wishes in ((plain, other["certificate"]["wishes"]), (other, plain["certificate"]["wishes"])):
        forged = copy.deepcopy(menu)
        forged["certificate"]["wishes"] = copy.deepcopy(wishes)
        assert not verify(rehashed(forged)).ok


@pytest.mark.parametrize("name", ["profit", "profit if resumed", "customers' surplus"])
def test_limits_cannot_be_changed_in_the_tiers_alone_or_in_the_wishes_alone(name: str) -> None:
    menu = menu_of(name)

    for holder_of in (lambda one: one["tiers"][0], lambda one: one["certificate"]["wishes"]["limits"]["t1"]):
        for limit in LIMITS["t1"]:
            for change in (lambda value: value + 1, lambda value: 0, lambda value: None):
                forged = copy.deepcopy(menu)
                holder_of(forged)[limit] = change(holder_of(forged)[limit])
                assert not verified(rehashed(forged)).ok, (limit, holder_of(forged))
