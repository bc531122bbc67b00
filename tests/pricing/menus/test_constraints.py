"""Terms of a menu one by one: whether a menu meets them, and the highest prices that do, against plain trying."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pricing.market.market import read_market
from pricing.market.worth import valuation_of, worth_at
from pricing.mechanism.offers import Offer, chosen
from pricing.mechanism.rounding import Published, publish
from pricing.menus.constraints import aimed, highest, is_met, kept, kept_today, terms_aim, worse_off
from pricing.menus.objectives import Further, Term, WorseOff
from pricing.menus.request import Wishes, wishes
from tests.pricing import markets

MARKET = markets.market(
    types=markets.types([0.05, 0.2, 0.5], [0.3, 0.3, 0.4]),
    answer_length={"family": "table", "tokens": [10, 20, 40], "probability": [0.3, 0.3, 0.4]},
    tokens_per_s=10,
    first_token_s=0,
    value_nanousd=200,
)
VALUATION = valuation_of(read_market(MARKET))


def asked(**further: Any) -> Wishes:
    return wishes(tiers=3, bill="conversation", names=None, further=Further(**further))


def ascending(worth: np.ndarray) -> np.ndarray:
    """Return all ascending whole prices, shape (offers, tiers), from 45 below a tier's least worth to above its largest."""
    around = [np.arange(max(1, int(column.min()) - 45), int(column.max()) + 2) for column in worth.T]
    prices = np.stack(np.meshgrid(*around, indexing="ij"), axis=-1).reshape(-1, len(around))
    return np.asarray(prices[np.all(np.diff(prices) > 0, axis=1)])


def feasible(published: Published, prices: np.ndarray, wished: Wishes, today: np.ndarray | None) -> np.ndarray:
    """Return at which prices every type of a menu keeps its tier and all terms hold, shape (offers,): plainly."""
    served = published.takes >= 0
    gains = published.worth[served] - prices[:, None, :]
    own = np.take_along_axis(gains, published.takes[served][None, :, None], axis=2)[:, :, 0]
    holds = np.all((own >= 0) & (own >= gains.max(axis=2)), axis=1)
    for term in wished.terms:
        place = term.tier - 1
        if place < prices.shape[1]:
            if term.price_nanousd_max is not None:
                holds &= prices[:, place] <= term.price_nanousd_max
            if term.surplus_nanousd_min is not None:
                takers = published.takes[served] == place
                holds &= own[:, takers].min(axis=1) >= term.surplus_nanousd_min
    if today is not None:
        holds &= np.all(own >= today[served], axis=1)
    return np.asarray(holds)


@pytest.mark.parametrize(
    "further",
    [
        {},
        {"terms": (Term(1, price_nanousd_max=50),)},
        {"terms": (Term(2, price_nanousd_max=80),)},
        {"terms": (Term(3, price_nanousd_max=100),)},
        {"terms": (Term(3, price_nanousd_max=1_000),)},
        {"terms": (Term(1, surplus_nanousd_min=5),)},
        {"terms": (Term(2, surplus_nanousd_min=10), Term(3, price_nanousd_max=110))},
        {"terms": (Term(3, surplus_nanousd_min=30), Term(1, price_nanousd_max=20))},
        {"worse_off": WorseOff(0.0, (10, 40), (20, 90))},
        {"worse_off": WorseOff(0.5, (10, 40), (20, 90))},
    ],
    ids=str,
)
@pytest.mark.parametrize("caps", [[3, 2, 1], [3, 3, 1], [3, 2, 2]])
def test_no_prices_that_keep_all_types_in_their_tiers_are_higher(further: dict[str, Any], caps: list[int]) -> None:
    """Of all whole prices at which own choice, participation and the terms hold, each tier's is the highest there is."""
    wished = asked(**further)
    published = publish(VALUATION, np.array(caps))
    condition = wished.worse_off if wished.worse_off is not None and not wished.worse_off.share_max else None
    today = None if condition is None else kept_today(VALUATION, condition)
    allowed = np.concatenate(
        [
            prices[feasible(published, prices, wished, today)]
            for prices in np.array_split(ascending(published.worth), 20)
        ]
    )

    found = highest(VALUATION, published, wished)

    assert found.caps.tolist() == published.caps.tolist()
    assert found.prices.tolist() == allowed.max(axis=0).tolist()


def sold(caps: list[int], prices: list[int]) -> Published:
    return chosen(VALUATION, Offer(np.array(caps), np.array(prices)))


def test_each_term_is_met_or_not() -> None:
    """To the nano-unit; every term counts, for its own tier alone, and not where there is no such tier."""
    menu = sold([1, 2, 3], [36, 76, 141])
    surplus = kept(menu)
    assert menu.takes.tolist() == [2, 1, 0]

    for place, price in enumerate([36, 76, 141], 1):
        assert is_met(VALUATION, menu, asked(terms=(Term(place, price_nanousd_max=price),)))
        assert not is_met(VALUATION, menu, asked(terms=(Term(place, price_nanousd_max=price - 1),)))
        least = int(surplus[3 - place])
        assert is_met(VALUATION, menu, asked(terms=(Term(place, surplus_nanousd_min=least),)))
        assert not is_met(VALUATION, menu, asked(terms=(Term(place, surplus_nanousd_min=least + 1),)))
    assert is_met(VALUATION, menu, asked())
    assert not is_met(VALUATION, menu, asked(terms=(Term(4, price_nanousd_max=1_000),)))
    assert not is_met(VALUATION, menu, asked(terms=(Term(1, price_nanousd_max=36), Term(2, price_nanousd_max=75))))


def test_a_floor_of_surplus_is_kept_for_every_type_of_the_tier() -> None:
    """The most urgent of two types that share a tier keeps the least."""
    menu = sold([1, 3], [36, 112])
    surplus = kept(menu)

    assert menu.takes.tolist() == [1, 1, 0]
    assert surplus[1] < surplus[0]
    assert is_met(VALUATION, menu, asked(terms=(Term(2, surplus_nanousd_min=int(surplus[1])),)))
    assert not is_met(VALUATION, menu, asked(terms=(Term(2, surplus_nanousd_min=int(surplus[1]) + 1),)))


def test_everyone_is_served_or_not() -> None:
    everyone = replace(VALUATION, everyone=True)
    menu = sold([3], [100])

    assert menu.takes.tolist() == [0, 0, -1]
    assert is_met(VALUATION, menu, asked())
    assert not is_met(everyone, menu, asked(everyone=True))


def test_whoever_keeps_less_than_today_is_counted() -> None:
    """By share of the conversations, with a tolerance of one nano-unit for rounding."""
    today = WorseOff(0.3, (10, None), (30, 90))
    worth = worth_at(VALUATION, np.array([1, 3]))
    stays = [max(worth[row, 0] - 30, worth[row, 1] - 90, 0.0) for row in range(3)]

    assert kept_today(VALUATION, today) == pytest.approx(stays)
    assert worse_off(VALUATION, sold([1, 3], [30, 90]), today) == 0
    assert worse_off(VALUATION, sold([1, 3], [30, 91]), today) == 0
    assert worse_off(VALUATION, sold([1, 3], [30, 93]), today) == pytest.approx(0.6)
    assert worse_off(VALUATION, sold([1, 3], [33, 90]), today) == pytest.approx(0.4)
    assert not is_met(VALUATION, sold([1, 3], [33, 90]), asked(worse_off=today))
    assert is_met(VALUATION, sold([1, 3], [33, 90]), asked(worse_off=WorseOff(0.4, (10, None), (30, 90))))


def test_a_cap_of_today_between_two_steps_counts_as_the_smaller() -> None:
    """A cap that is a step is that step."""

    assert kept_today(VALUATION, WorseOff(0.0, (20,), (50,))) == pytest.approx(
        kept_today(VALUATION, WorseOff(0.0, (39,), (50,)))
    )
    assert kept_today(VALUATION, WorseOff(0.0, (20,), (50,)))[0] < kept_today(VALUATION, WorseOff(0.0, (40,), (50,)))[0]
    assert kept_today(VALUATION, WorseOff(0.0, (20,), (50,)))[0] > kept_today(VALUATION, WorseOff(0.0, (19,), (50,)))[0]


def test_what_may_not_be_sold_scores_nothing_and_surplus_counts_by_its_weight() -> None:
    """The aim of an offer: the profit, and the weight of what customers keep."""
    half = replace(VALUATION, surplus_weight=0.5)
    offer, menu = Offer(np.array([1, 3]), np.array([36, 112])), sold([1, 3], [36, 112])
    profit = float(np.dot(VALUATION.share, menu.prices[menu.takes]))
    surplus = float(np.dot(VALUATION.share, kept(menu)))

    assert aimed(VALUATION, menu) == pytest.approx(profit)
    assert aimed(half, menu) == pytest.approx(profit + surplus / 2)
    assert terms_aim(VALUATION, asked(terms=(Term(1, price_nanousd_max=36),)), 3).score(
        VALUATION, offer
    ) == pytest.approx(profit)
    assert terms_aim(VALUATION, asked(terms=(Term(1, price_nanousd_max=35),)), 3).score(VALUATION, offer) == -np.inf


def test_the_search_starts_with_menus_that_meet_the_terms_and_with_todays() -> None:
    today = WorseOff(0.0, (10, None), (30, 90))
    aim = terms_aim(VALUATION, asked(worse_off=today), 3)
    keys = {offer.key for offer in aim.starts}
    terms = asked(terms=(Term(1, price_nanousd_max=20),))

    assert (1, 3, 30, 90) in keys
    assert len(keys) > 3
    assert any(
        np.isfinite(terms_aim(VALUATION, terms, 3).score(VALUATION, offer))
        for offer in terms_aim(VALUATION, terms, 3).starts
    )
