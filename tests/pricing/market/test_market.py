"""A bad market is refused with one sentence that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.certificate import verify
from pricing.market.fields import NotAMarket, numbers
from pricing.market.market import read_market
from pricing.menus.menu import NotAMenu
from pricing.menus.menus import optimal_menu
from pricing.report.report import report
from tests.pricing import markets

pytestmark = pytest.mark.filterwarnings("error")

SURVIVAL = {"family": "kaplan_meier", "tokens": [10, 20], "survival": [0.5, 0.2]}
TABLE = {"family": "table", "tokens": [10, 20], "probability": [0.5, 0.5]}

UNIFORM = {"family": "uniform", "low_per_s": 0.1, "high_per_s": 0.3, "points": 4}
PIECEWISE = {"family": "piecewise", "edges_per_s": [0.1, 0.2, 0.4], "share": [0.25, 0.75], "points": 4}
RISING = {"urgency_per_s": [0.0, 0.2], "value_nanousd": [100, 200]}
FALLING = {"urgency_per_s": [0.0, 0.2], "value_nanousd": [200, 100]}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"types": []}, "types"),
    ({"types": [{"urgency_per_s": -0.1, "share": 1}]}, "types[0].urgency_per_s"),
    ({"types": [{"urgency_per_s": float("nan"), "share": 1}]}, "types[0].urgency_per_s"),
    ({"types": [{"urgency_per_s": float("inf"), "share": 1}]}, "types[0].urgency_per_s"),
    ({"types": [{"urgency_per_s": "fast", "share": 1}]}, "types[0].urgency_per_s"),
    ({"types": [{"urgency_per_s": 0.1, "share": 0.9}]}, "sum to 0.9"),
    ({"types": [{"urgency_per_s": 0.1, "share": 0}]}, "types[0].share"),
    ({"types": [{"urgency_per_s": 0.1}]}, "types[0].share"),
    ({"types": [7]}, "types[0]"),
    ({"types": None}, "types"),
    ({"types": markets.types([0.1], [1]), "urgency": UNIFORM}, "not both"),
    ({"types": None, "urgency": UNIFORM | {"points": 0}}, "urgency.points"),
    ({"types": None, "urgency": UNIFORM | {"points": 10**6}}, "urgency.points"),
    ({"types": None, "urgency": UNIFORM | {"high_per_s": 0.1}}, "urgency.high_per_s"),
    ({"types": None, "urgency": {"family": "gamma"}}, "urgency.family"),
    ({"types": None, "urgency": PIECEWISE | {"share": [0.5, 0.4]}}, "sum to 0.9"),
    ({"types": None, "urgency": PIECEWISE | {"edges_per_s": [0.1, 0.1, 0.4]}}, "edges_per_s"),
    ({"types": None, "urgency": {"family": "empirical", "observed_per_s": []}}, "urgency.observed_per_s"),
    ({"types": None, "urgency": {"family": "empirical", "observed_per_s": [0.1], "weight": [1, 2]}}, "weight"),
    ({"value_nanousd": None, "value_by_urgency": RISING}, "rises with urgency"),
    ({"value_nanousd": None, "value_by_urgency": FALLING, "delay": {"family": "sunk_linear"}}, "sunk_linear"),
    ({"value_nanousd": 1, "types": [{"urgency_per_s": 0.1, "share": 1, "value_nanousd": 1}]}, "not both"),
    ({"value_nanousd": 2**52, "types": markets.types(range(1, 3001), [1 / 3000] * 3000)}, "nano-units"),
    ({"value_nanousd": 0}, "value_nanousd"),
    ({"value_nanousd": True}, "value_nanousd"),
    ({"delay": {"family": "quadratic"}}, "delay.family"),
    ({"delay": "exponential"}, "delay"),
    ({"answer_length": {"family": "exponential", "mean_tokens": 0}}, "mean_tokens"),
    ({"answer_length": {"family": "exponential", "mean_tokens": 10**7}}, "steps"),
    ({"answer_length": {"family": "gamma"}}, "answer_length.family"),
    ({"answer_length": TABLE | {"tokens": [10]}}, "same length"),
    ({"answer_length": TABLE | {"tokens": [20, 10]}}, "rise"),
    ({"answer_length": TABLE | {"tokens": [0.5, 10]}}, "tokens[0]"),
    ({"answer_length": TABLE | {"probability": [0.6, 0.6]}}, "above 1"),
    ({"answer_length": TABLE | {"probability": [0.0, 0.0]}}, "no answer"),
    ({"answer_length": TABLE | {"probability": [0.5, -0.1]}}, "probability[1]"),
    ({"answer_length": TABLE | {"probability": [0.5, True]}}, "probability[1]"),
    ({"answer_length": TABLE | {"tokens": [True, 10]}}, "tokens[0]"),
    ({"types": [{"urgency_per_s": 0.1, "share": True}]}, "share"),
    ({"answer_length": TABLE | {"probability": [0.5, 0.2]}}, "never finish"),
    ({"answer_length": TABLE, "cap_tokens_max": 5}, "shortest answer"),
    ({"tokens_per_s": 0}, "tokens_per_s"),
    ({"tokens_per_s": 1e-310}, "above 1e-100"),
    ({"types": [{"urgency_per_s": 1e300, "share": 1}]}, "at most 9007199254740991"),
    ({"first_token_s": -1}, "first_token_s"),
    ({"cost_nanousd_per_token": 5}, "cap_tokens_max is required"),
    ({"cost_nanousd_per_token": -5}, "cost_nanousd_per_token"),
    ({"cost_on_disconnect": "maybe"}, "cost_on_disconnect"),
    ({"cap_tokens_max": 0}, "cap_tokens_max"),
    ({"answer_length": SURVIVAL | {"survival": [0.5, 0.6]}, "cap_tokens_max": 20}, "falls weakly"),
    ({"answer_length": SURVIVAL}, "never finish"),
    ({"types": markets.types(range(1, 20_001), [1 / 20_000] * 20_000), "cap_tokens_max": 10**5}, "too many"),
    ({"cap_tokens_max": 10.5}, "cap_tokens_max"),
    ({"currency": ""}, "currency"),
]


def test_each_number_of_a_list_is_above_its_bound() -> None:
    assert numbers({"knots": [2, 3.5]}, "knots", above=1.0) == [2.0, 3.5]
    with pytest.raises(NotAMarket, match=r"^knots\[1\] is a finite number above 1, not 0\.5\.$"):
        numbers({"knots": [2, 0.5]}, "knots", above=1.0)


@pytest.mark.parametrize(("changes", "named"), BAD, ids=[f"{place}-{named}" for place, (_, named) in enumerate(BAD)])
def test_a_bad_market_gets_one_sentence(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(NotAMarket) as refused:
        optimal_menu(
            read_market(markets.market(**changes)), tiers=None, bill="conversation", names=None, created="2025-01-01"
        )

    assert named in str(refused.value)
    assert str(refused.value).endswith(".")


def test_a_number_too_small_to_matter_counts_as_none() -> None:
    market = read_market(markets.market(types=[{"urgency_per_s": 1e-310, "share": 1}], first_token_s=5e-324))

    assert (market.urgency_per_s, market.first_token_s) == ((0.0,), 0.0)


SIZES = st.one_of(
    st.sampled_from([0.0, 5e-324, 1e-310, 1e-100, 1e-20, 2.0**53 - 1]),
    st.floats(-120, 15).map(lambda exponent: 10.0**exponent),
    st.floats(1e-3, 1e3),
)


@given(st.data())
@settings(max_examples=200)
def test_numbers_of_any_size_make_a_verified_menu_or_a_sentence(data: st.DataObject) -> None:
    """Worth, urgency, speed, cost and waits of unrelated magnitudes cause no overflow and no warning."""
    weights = data.draw(st.lists(SIZES, min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 0))
    urgency = data.draw(st.lists(SIZES, min_size=len(weights), max_size=len(weights)))
    table = {"family": "table", "tokens": [3, 4, 90_000], "probability": [0.5, 0.0, 0.25]}
    length = data.draw(
        st.one_of(st.just(table), SIZES.map(lambda mean: {"family": "exponential", "mean_tokens": mean}))
    )
    description = markets.market(
        types=markets.types(urgency, [weight / sum(weights) for weight in weights]),
        answer_length=length,
        delay={"family": data.draw(st.sampled_from(["exponential", "hyperbolic", "linear", "sunk_linear"]))},
        cost_on_disconnect=data.draw(st.sampled_from(["stops", "runs"])),
        cap_tokens_max=data.draw(st.sampled_from([2, 40])) if length is not table else 100_000,
        **{field: data.draw(SIZES) for field in ("value_nanousd", "tokens_per_s", "first_token_s")},
        cost_nanousd_per_token=data.draw(st.one_of(st.just(0), SIZES)),
    )
    try:
        market = read_market(description)
        menu = optimal_menu(market, tiers=None, bill="conversation", names=None, created="2025-01-01")
    except NotAMarket as wrong:
        assert str(wrong).endswith(".")
        return
    assert verify(json.loads(json.dumps(menu, allow_nan=False))).violation is None
    assert report(market, menu)


def test_types_come_in_any_order_and_equal_urgencies_are_one_type() -> None:
    market = read_market(markets.market(types=markets.types([0.2, 0.1, 0.2], [0.25, 0.5, 0.25])))

    assert market.urgency_per_s == (0.1, 0.2)
    assert market.share == (0.5, 0.5)


def test_an_answer_that_costs_more_than_it_is_worth_is_not_sold() -> None:
    """The right menu is empty."""
    market = read_market(markets.market(cost_nanousd_per_token=10**9, cap_tokens_max=1000))
    menu = optimal_menu(market, tiers=None, bill="conversation", names=None, created="2025-01-01T00:00:00Z")

    assert menu["tiers"] == []
    assert menu["totals"]["profit_nanousd"] == 0
    assert menu["totals"]["excluded_share"] == 1
    assert menu["certificate"]["bound"]["gap_share"] == 0


def test_uniform_urgency_is_cut_at_the_right_ends_of_equal_cells() -> None:
    market = read_market(markets.market(types=None, urgency=UNIFORM))

    assert market.urgency_per_s == pytest.approx((0.15, 0.2, 0.25, 0.3))
    assert market.share == (0.25, 0.25, 0.25, 0.25)


def test_piecewise_urgency_is_cut_at_its_quantiles() -> None:
    """A quarter is below 0.2, the rest is evenly distributed above."""
    market = read_market(markets.market(types=None, urgency=PIECEWISE))

    assert market.urgency_per_s == pytest.approx((0.2, 0.2 + 0.2 / 3, 0.2 + 0.4 / 3, 0.4))


def test_empirical_urgency_is_what_was_observed() -> None:
    """Observations are used unchanged, weighted, or cut at quantiles; equal urgencies are one type."""
    observed = {"family": "empirical", "observed_per_s": [0.3, 0.1, 0.1, 0.2]}
    as_it_is = read_market(markets.market(types=None, urgency=observed))
    weighted = read_market(markets.market(types=None, urgency=observed | {"weight": [5, 1, 1, 3]}))
    cut = read_market(markets.market(types=None, urgency=observed | {"points": 2}))

    assert (as_it_is.urgency_per_s, as_it_is.share) == ((0.1, 0.2, 0.3), (0.5, 0.25, 0.25))
    assert weighted.share == pytest.approx((0.2, 0.3, 0.5))
    assert (cut.urgency_per_s, cut.share) == ((0.1, 0.3), (0.5, 0.5))


def test_a_survival_curve_is_the_table_of_its_drops() -> None:
    """The share that is left after the last length never finishes."""
    curve = read_market(markets.market(answer_length=SURVIVAL, cap_tokens_max=20))
    table = read_market(markets.market(answer_length=TABLE | {"probability": [0.5, 0.3]}, cap_tokens_max=20))

    assert curve.answer_length.probability == pytest.approx(table.answer_length.probability)


def test_worth_may_fall_with_urgency() -> None:
    """Worth is interpolated linearly between the points, and constant beyond them."""
    market = read_market(
        markets.market(
            types=markets.types([0.0, 0.1, 0.5], [0.5, 0.25, 0.25]), value_nanousd=None, value_by_urgency=FALLING
        )
    )

    assert market.value_nanousd == (200, 150, 100)


def test_input_is_priced_at_its_cost_and_a_subscription_at_its_conversations() -> None:
    market = read_market(markets.market(input_cost_nanousd_per_token=0.25))
    menu = optimal_menu(
        market, tiers=2, bill="subscription", names=["s", "l"], created="2025-01-01", included_conversations=40
    )

    for tier in menu["tiers"]:
        assert tier["input_nanousd_per_mtok"] == 250_000
        assert tier["period_price_nanousd"] == 40 * tier["price_nanousd"]
        assert tier["included_conversations"] == 40
    assert [tier["name"] for tier in menu["tiers"]] == ["s", "l"]


@pytest.mark.parametrize(
    ("wishes", "named"),
    [
        ({"tiers": 0}, "number of tiers"),
        ({"bill": "tokens"}, "bill"),
        ({"names": ["a", "a", "b", "c"]}, "share a name"),
        ({"names": ["a"]}, "4 names, not 1"),
        ({"names": ["a b", "c", "d", "e"]}, "not a tier's name"),
        ({"objective": "fame"}, "objective"),
        ({"included_conversations": 0}, "included_conversations"),
    ],
)
def test_a_wish_that_cannot_be_granted_gets_one_sentence(wishes: dict[str, Any], named: str) -> None:
    options: dict[str, Any] = {"tiers": None, "bill": "conversation", "names": None, "created": "2025-01-01"}
    with pytest.raises(NotAMenu) as refused:
        optimal_menu(read_market(markets.market()), **options | wishes)

    assert named in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(markets.market(cap_tokens_max=50))), JSON)
@settings(max_examples=300)
def test_whatever_stands_in_a_field_it_is_a_market_or_a_sentence(field: str, value: Any) -> None:
    """Nothing raises another error or a warning."""
    try:
        optimal_menu(
            read_market(markets.market(cap_tokens_max=50) | {field: value}),
            tiers=2,
            bill="conversation",
            names=None,
            created="2025-01-01",
        )
    except NotAMarket as wrong:
        assert str(wrong).endswith(".")
