"""A menu that was changed after it was computed is detected, and the change is named."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.certificate import Verdict, disagreement, verify
from pricing.market.market import read_market
from pricing.mechanism.mechanism import Allocation
from pricing.menus.menu import NotAMenu, digest
from pricing.menus.menus import digests, optimal_menu, with_limits, written
from pricing.menus.request import wishes
from pricing.menus.solving import solve
from tests.pricing import markets

Json = dict[str, Any]


pytestmark = pytest.mark.filterwarnings("error")


def menu_of(market: Json, tiers: int | None = None, bill: str = "conversation") -> Json:
    menu = optimal_menu(read_market(market), tiers=tiers, bill=bill, names=None, created="2025-01-01T00:00:00Z")
    return json.loads(json.dumps(menu))


SMALL = menu_of(
    markets.market(
        types=markets.types([0.1, 0.3], [0.5, 0.5]),
        answer_length={"family": "table", "tokens": [10, 20, 40], "probability": [0.2, 0.3, 0.5]},
    ),
    bill="subscription",
)


@pytest.fixture(scope="module")
def menu() -> Json:
    tokens = list(range(40, 4_001, 40))
    chances = [np.exp(-(n - 40) / 400) - np.exp(-n / 400) for n in tokens]
    table = {"family": "table", "tokens": tokens, "probability": chances}
    return menu_of(markets.market(answer_length=table, cap_tokens_max=4_000), bill="subscription")


def rehashed(menu: Json) -> Json:
    """Return the menu with all hashes recomputed, as a careful forger would."""
    menu["certificate"]["digests"] = digests(menu)
    return menu


def at_tier(number: int, field: str, change: Callable[[Any], Any]) -> Callable[[Json], None]:
    def edit(menu: Json) -> None:
        tier = menu["tiers"][number]
        holder = tier if field in tier else tier["expected"]
        holder[field] = change(holder[field])

    return edit


def at(path: str, change: Callable[[Any], Any]) -> Callable[[Json], None]:
    def edit(menu: Json) -> None:
        *above, last = path.split(".")
        holder = menu
        for key in above:
            holder = holder[int(key)] if isinstance(holder, list) else holder[key]
        holder[int(last) if isinstance(holder, list) else last] = change(holder[last])  # type: ignore[index]

    return edit


FORGERIES = [
    (at_tier(0, "price_nanousd", lambda price: price + 1), "tiers[t1].price_nanousd"),
    (at_tier(1, "price_nanousd", lambda price: price - 1), "tiers[t2].price_nanousd"),
    (at_tier(3, "price_nanousd", lambda price: price * 2), "tiers[t4].price_nanousd"),
    (at_tier(2, "conversation_tokens_max", lambda cap: cap - 1), "tiers[t3].conversation_tokens_max"),
    (at_tier(3, "conversation_tokens_max", lambda _: None), "tiers[t4].conversation_tokens_max"),
    (at_tier(0, "name", lambda _: "gold"), "tiers[t1].name"),
    (at_tier(1, "included_conversations", lambda number: number + 1), "tiers[t2].included_conversations"),
    (at_tier(1, "period_price_nanousd", lambda price: price + 1), "tiers[t2].period_price_nanousd"),
    (at_tier(1, "share", lambda share: share + 1e-6), "tiers[t2].expected.share"),
    (at_tier(1, "tokens", lambda tokens: tokens + 1), "tiers[t2].expected.tokens"),
    (at_tier(1, "cost_nanousd", lambda cost: cost + 1), "tiers[t2].expected.cost_nanousd"),
    (at_tier(1, "margin_nanousd", lambda margin: margin - 1), "tiers[t2].expected.margin_nanousd"),
    (at_tier(1, "p_answer", lambda chance: chance * 1.0001), "tiers[t2].expected.p_answer"),
    (at("assignment", lambda listed: listed[1:]), "assignment"),
    (at("currency", lambda _: "EUR"), "currency"),
    (at("version", lambda _: "0" * 16), "version"),
    (at("bill", lambda _: "conversation"), "bill"),
]


@pytest.mark.parametrize(("forge", "named"), FORGERIES, ids=[named for _, named in FORGERIES])
def test_a_forged_field_is_named_even_if_all_hashes_fit(menu: Json, forge: Callable[[Json], None], named: str) -> None:
    """The figures are computed again, so a forger gains nothing by recomputing the hashes."""
    forged = copy.deepcopy(menu)
    forge(forged)

    assert named in (verify(forged).violation or "")
    assert named in (verify(rehashed(forged)).violation or "")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every number, string and null of the file with its path."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from leaves(one, f"{path}.{place}")
    else:
        yield path, value


def changed(value: Any) -> Any:
    if isinstance(value, str):
        return value + "x"
    return 1 if value is None else value + 1 if isinstance(value, int) else value * (1 + 1e-6) + 1e-6


def test_no_single_value_of_the_file_can_be_changed(menu: Json) -> None:
    """Changes each value of the whole file, one at a time."""
    for path, value in leaves(menu):
        forged = copy.deepcopy(menu)
        holder: Any = forged
        *above, last = path.split(".")
        if above[:2] == ["certificate", "digests"]:
            above, last = above[:2], path.removeprefix("certificate.digests.")
        for key in above:
            holder = holder[int(key)] if isinstance(holder, list) else holder[key]
        holder[int(last) if isinstance(holder, list) else last] = changed(value)

        verdict = verify(forged)
        assert not verdict.ok, path
        assert verdict.violation, path


def test_a_field_that_does_not_belong_is_named(menu: Json) -> None:
    """Limits are added with ``with_limits``, not by hand."""
    forged = copy.deepcopy(menu)
    forged["tiers"][1]["requests_per_minute"] = 10

    assert "tiers[t2].requests_per_minute" in (verify(rehashed(forged)).violation or "")


def test_an_operators_limits_are_part_of_the_version(menu: Json) -> None:
    """A menu with limits is another menu, and verifies as well."""
    limited = with_limits(menu, {"t2": {"requests_per_minute": 10}})

    assert limited["tiers"][1]["requests_per_minute"] == 10
    assert limited["version"] != menu["version"]
    assert verify(limited).ok
    with pytest.raises(NotAMenu, match="cannot be typed"):
        with_limits(menu, {"t2": {"conversation_tokens_max": 10}})
    with pytest.raises(NotAMenu, match="no tier gold"):
        with_limits(menu, {"gold": {"requests_per_minute": 10}})


def test_multipliers_may_be_worse_but_not_lie(menu: Json) -> None:
    """Any multipliers give a true bound; a bound that does not follow from them is detected."""
    worse = copy.deepcopy(menu)
    worse["certificate"]["bound"]["multipliers"]["flow"] = [0.0, 0.0, 0.0]
    assert "certificate.bound.upper_bound_nanousd" in (verify(rehashed(worse)).violation or "")

    greedy = copy.deepcopy(menu)
    greedy["certificate"]["bound"]["multipliers"]["flow"][0] = 0.5
    assert "pass on more than it receives" in (verify(rehashed(greedy)).violation or "")


@pytest.mark.parametrize(
    "wrong", [{}, {"tiers": 3}, {"version": "1", "created": "x", "currency": "USD"}, {"market": []}]
)
def test_what_is_not_a_menu_is_refused_in_a_sentence(wrong: Json) -> None:
    assert verify(wrong).violation


def test_whole_numbers_may_come_back_as_doubles_and_the_other_way_round(menu: Json) -> None:
    """Programs whose only numbers are doubles write 4.0 as 4; the menu is the same."""
    rewritten = json.loads(
        json.dumps(menu), parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text)
    )

    assert digest(rewritten) == digest(menu)
    assert verify(rewritten).ok


def test_the_order_of_keys_is_no_part_of_a_menu(menu: Json) -> None:
    turned = json.loads(json.dumps(menu), object_pairs_hook=lambda pairs: dict(reversed(pairs)))

    assert list(turned) != list(menu)
    assert digest(turned) == digest(menu)
    assert verify(turned).ok


def test_caps_that_are_as_good_are_accepted() -> None:
    """No answer ends with the third step: a cap there is as good as at the second; another machine may choose it."""
    table = {"family": "table", "tokens": [10, 20, 30, 40], "probability": [0.4, 0.3, 0.0, 0.3]}
    changes = {
        "types": markets.types([0.1, 0.6], [0.5, 0.5]),
        "answer_length": table,
        "delay": {"family": "hyperbolic"},
    }
    market = read_market(markets.market(**changes, tokens_per_s=10))
    wished = wishes(tiers=None, bill="conversation", names=None)
    solution = solve(market, wished)
    other = np.where(solution.chosen.caps == 3, 2, solution.chosen.caps)
    twin = replace(solution, chosen=Allocation(other, solution.chosen.profit))
    worse = replace(solution, chosen=Allocation(np.array([4, 1]), solution.chosen.profit))

    assert solution.chosen.caps.tolist() == [4, 3]
    assert verify(written(market, wished, twin, "2025-01-01")).ok
    assert "conversation_tokens_max" in (verify(written(market, wished, worse, "2025-01-01")).violation or "")


def test_random_menus_verify() -> None:
    """Irregular markets, few and many tiers, with and without cost, with values small enough that tiers are merged."""
    random = np.random.default_rng(11)
    merged = 0
    for _ in range(60):
        market = markets.random_market(random, types_max=7, steps_max=9, cost=bool(random.integers(2)))
        scale = float(random.choice([5, 1e3, 1e9]))
        market["value_nanousd"] *= scale
        market["cost_nanousd_per_token"] *= scale
        menu = menu_of(market, tiers=random.choice([None, 1, 2, 3]))
        verdict: Verdict = verify(menu)

        assert verdict.ok, verdict.violation
        assert verdict.own_choice_slack >= -2 * verdict.worth_error
        assert verdict.profit <= verdict.upper_bound + 1e-6
        merged += menu["certificate"]["rounding"]["tiers_merged"]
    assert merged > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
@settings(max_examples=300)
def test_whatever_stands_in_a_menu_the_verdict_is_a_sentence(data: st.DataObject) -> None:
    """Any value in any place of the file, with matching hashes or not, raises no other error."""
    forged: Any = copy.deepcopy(SMALL)
    holder = forged
    while True:
        places = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
        place = data.draw(st.sampled_from(places))
        inside = holder[place]
        if not isinstance(inside, dict | list) or not inside or data.draw(st.integers(0, 4)) == 0:
            break
        holder = inside
    value = data.draw(JSON)
    holder[place] = value
    with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError):
        if data.draw(st.booleans()):
            rehashed(forged)

    verdict = verify(forged)
    assert verdict.ok == (verdict.violation is None)


def test_true_is_no_whole_number(menu: Json) -> None:
    forged = copy.deepcopy(menu)
    forged["certificate"]["rounding"]["tiers_merged"] = bool(menu["certificate"]["rounding"]["tiers_merged"])

    assert forged == menu, "Python compares them as equal"
    assert "tiers_merged" in (verify(rehashed(forged)).violation or "")


@pytest.mark.parametrize("scale", [1.0, -1.0, 1e9])
def test_ways_to_the_same_profit_agree_to_nine_digits(scale: float) -> None:
    """The tolerance is relative, and absolute below one nano-unit; a way without a result is ignored."""
    assert disagreement({"by_prices": scale, "by_surplus": scale * (1 + 0.9e-9), "by_envelope": None}) is None
    assert "differ" in (disagreement({"by_prices": scale, "by_surplus": scale * (1 + 1.1e-9)}) or "")
    assert disagreement({"by_prices": 1e-3, "by_surplus": 1e-3 + 0.9e-9}) is None
    assert "differ" in (disagreement({"by_prices": 0.0, "by_surplus": 1.0}) or "")
