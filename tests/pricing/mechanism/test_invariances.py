"""Changes of a market that must not change its menu, or must move it in one direction, for every market."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.market.market import read_market
from pricing.market.worth import tokens_at, valuation_of, worth_at
from pricing.mechanism.mechanism import first_best, full_menu, iron
from pricing.mechanism.tiers import best_tiers, single_plan
from pricing.menus.menus import optimal_menu
from tests.pricing import markets

WEIGHTS = st.integers(1, 100)


@st.composite
def any_market(draw: st.DrawFn, cost: bool = False) -> dict[str, Any]:
    """Return a market of up to six types and ten steps; every step has some probability."""
    urgency = draw(st.lists(st.integers(1, 400), min_size=1, max_size=6, unique=True))
    weights = draw(st.lists(WEIGHTS, min_size=len(urgency), max_size=len(urgency)))
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=10))
    chances = draw(st.lists(WEIGHTS, min_size=len(sizes), max_size=len(sizes)))
    never = draw(st.integers(0, 50))
    return markets.market(
        types=markets.types([r / 100 for r in urgency], [w / sum(weights) for w in weights]),
        value_nanousd=draw(st.sampled_from([1_000, 10**6, 10**9])),
        answer_length={
            "family": "table",
            "tokens": np.cumsum(sizes).tolist(),
            "probability": [chance / (sum(chances) + never) for chance in chances],
        },
        tokens_per_s=draw(st.sampled_from([5, 20, 80])),
        first_token_s=draw(st.sampled_from([0, 0.3, 1.5])),
        cap_tokens_max=1_000,
        cost_nanousd_per_token=draw(st.integers(0, 40)) * 0.25 if cost else 0,
        cost_on_disconnect=draw(st.sampled_from(["stops", "runs"])),
    )


def caps(description: dict[str, Any]) -> list[int]:
    return full_menu(valuation_of(read_market(description))).caps.tolist()


@given(any_market(), st.data())
@settings(max_examples=60)
def test_caps_do_not_move_with_the_length_of_answers_or_their_worth(
    description: dict[str, Any], data: st.DataObject
) -> None:
    """Pricing is decoupled from training: caps depend only on the distribution of urgency and on the speed."""
    length = description["answer_length"]
    chances = data.draw(st.lists(WEIGHTS, min_size=len(length["tokens"]), max_size=len(length["tokens"])))
    other = length | {"probability": [chance / sum(chances) for chance in chances]}

    assert caps(description | {"answer_length": other}) == caps(description)
    assert caps(description | {"value_nanousd": 7 * description["value_nanousd"]}) == caps(description)


@given(any_market(), st.sampled_from([0.5, 2.0, 8.0]))
@settings(max_examples=60)
def test_a_faster_clock_changes_nothing(description: dict[str, Any], factor: float) -> None:
    """Urgency multiplied by s with time divided by s is the same market; caps in seconds are divided by s."""
    faster = description | {
        "types": [one | {"urgency_per_s": one["urgency_per_s"] * factor} for one in description["types"]],
        "tokens_per_s": description["tokens_per_s"] * factor,
        "first_token_s": description["first_token_s"] / factor,
    }
    market = read_market(description)
    log_share, urgency = np.log(np.cumsum(market.share)), np.array(market.urgency_per_s)

    assert caps(faster) == caps(description)
    assert iron(log_share, urgency * factor).tolist() == (iron(log_share, urgency) / factor).tolist()


@given(any_market(cost=True), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_types_and_how_they_are_split_change_nothing(description: dict[str, Any], random: Any) -> None:
    """Two halves of a type count as the type."""
    listed = list(description["types"])
    first = listed.pop(0)
    halves = [first | {"share": first["share"] / 2}] * 2
    split = [*listed, *halves]
    random.shuffle(split)
    options: dict[str, Any] = {"tiers": None, "bill": "conversation", "names": None, "created": "2025-01-01T00:00:00Z"}
    before = optimal_menu(read_market(description), **options)
    after = optimal_menu(read_market(description | {"types": split}), **options)

    assert after["tiers"] == before["tiers"]
    assert after["assignment"] == before["assignment"]


@given(any_market(cost=True))
@settings(max_examples=60)
def test_more_freedom_earns_more(description: dict[str, Any]) -> None:
    """Single plan <= K tiers <= K + 1 tiers <= full menu <= first best."""
    valuation = valuation_of(read_market(description))
    longest = np.array([len(valuation.steps.tokens)])
    single = single_plan(valuation, worth_at(valuation, longest)[:, 0], tokens_at(valuation, longest)[:, 0])
    rising = [single, *(menu.profit for menu in best_tiers(valuation, 6)), full_menu(valuation).profit]
    rising.append(first_best(valuation))
    slack = 1e-12 * description["value_nanousd"]

    assert all(less <= more + slack for less, more in pairwise(rising))


@given(any_market(cost=True), st.sampled_from([1.5, 4.0]))
@settings(max_examples=60)
def test_dearer_serving_lowers_caps_and_profit(description: dict[str, Any], factor: float) -> None:
    """Every type's cap falls weakly, and so does profit."""
    cheaper = valuation_of(read_market(description))
    dearer = valuation_of(
        read_market(description | {"cost_nanousd_per_token": factor * description["cost_nanousd_per_token"]})
    )
    before, after = full_menu(cheaper), full_menu(dearer)

    assert (after.caps <= before.caps).all()
    assert after.profit <= before.profit
