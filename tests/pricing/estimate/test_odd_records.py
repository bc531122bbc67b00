"""Records that tell no market, or a different market than they seem to: a fit says in one sentence what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pricing
from pricing.estimate.fit import Estimate, fit
from pricing.estimate.given import Given
from pricing.estimate.observations.conversations import TIME_MS_MOST, CannotEstimate
from pricing.estimate.observations.records import seen_in_records
from pricing.menus.menu import Menu
from tests.pricing.estimate.recovery import CHOOSING, THREE, WORTH
from tests.pricing.estimate.simulated import BRIEF
from tests.pricing.estimate.talking import menu_of, talk

Record = dict[str, Any]

MENU = menu_of(CHOOSING.caps_tokens, CHOOSING.prices_nanousd)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(talk(THREE, MENU, customers=100, conversations=10, random=np.random.default_rng(1)))


def briefly(records: list[Record], menu: Record = MENU, *, own_tiers: bool = False) -> Estimate:
    """Return the estimate of ``pricing.fit`` with chains too short for prices; notes on records are the same."""
    seen = seen_in_records(records, {menu["version"]: Menu.from_json(menu)}, own_tiers=own_tiers)
    return fit(seen, Given(WORTH, 0.0), draws=2, random=np.random.default_rng(0), sweeps=BRIEF)


@pytest.fixture(scope="module")
def plain(records: list[Record]) -> Estimate:
    """The estimate from the unchanged records."""
    return briefly(records)


def all_with(**changes: Any) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [{**record, **changes} for record in records]


def every_other(**changes: Any) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [{**record, **(changes if place % 2 else {})} for place, record in enumerate(records)]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (lambda _: [], r"0 customers are too few; 30 are the least\.$"),
        (lambda records: records[:1], r"1 customer is too few; 30 are the least\.$"),
        (all_with(customer="cus_only"), r"1 customer is too few"),
        (all_with(kind="fee"), r"0 customers are too few"),
        (all_with(billed_output_tokens=-1), r"Set aside: 1,000 conversations of impossible tokens\."),
        (all_with(billed_output_tokens=10**12), r"Set aside: 1,000 conversations of impossible tokens\."),
        (all_with(billed_output_tokens=1.5), r"Set aside: 1,000 records malformed\."),
        (all_with(duration_ms=-1), r"Set aside: 1,000 conversations of impossible times\."),
        (all_with(time=TIME_MS_MOST + 1), r"Set aside: 1,000 conversations of impossible times\."),
        (all_with(finish="vanished"), r"Set aside: 1,000 conversations of unknown ending\."),
        (all_with(output_tokens=0, billed_output_tokens=0), r"No answer's length is known"),
        (all_with(finish="tool_calls"), r"No answer's length is known"),
        (all_with(menu_version="another"), r"No answer's length is known: .* Set aside: [0-9,]+ conversations of unknown tiers\."),
        (all_with(finish="disconnect"), r"Only 0 answers ended by themselves; 50 are the least\."),
        (all_with(stream=False), r"0 streamed calls do not tell the speed; 10 are the least\."),
        (
            all_with(output_tokens=1, billed_output_tokens=1, finish="complete"),
            r"None of [0-9,]+ streamed calls has a second token that came after the first, so nothing tells the speed\.",
        ),
        (every_other(currency="EUR"), r"Records and their menus are in EUR and USD"),
        (all_with(currency="EUR"), r"Records and their menus are in EUR and USD"),
        (
            lambda records: [{**one, "customer": one["conversation"], "conversation": one["customer"]} for one in records],
            r"[0-9,]+ customers have a conversation each, and these have [0-9,]+ names: .* are swapped",
        ),
    ],
)  # fmt: skip
def test_records_that_tell_no_market_are_refused_with_the_reason(
    records: list[Record], changed: Callable[[list[Record]], list[Record]], sentence: str
) -> None:
    with pytest.raises(CannotEstimate, match=sentence):
        pricing.fit(changed(records), [MENU], value_nanousd=WORTH, draws=2)


def test_times_in_seconds_are_told_by_the_speed(records: list[Record]) -> None:
    """A speed of 50,000 tokens a second once went into the market without a warning."""
    times = ("time", "settled", "duration_ms")
    in_seconds = [{**record, **{name: record[name] // 1000 for name in times}, "ttft_ms": 0} for record in records]

    found = briefly(in_seconds)

    assert any("tokens a second, faster than models make them" in note for note in found.notes)


def mixed_up(*fields: str) -> Callable[[list[Record]], list[Record]]:
    """Exchange some fields between records at random."""
    order = np.random.default_rng(0).permutation(1000).tolist()
    return lambda records: [
        {**record, **{field: records[other][field] for field in fields}}
        for record, other in zip(records, [place for place in order if place < len(records)], strict=True)
    ]


REVERSED = {"t1": "t3", "t2": "t2", "t3": "t1"}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (mixed_up("duration_ms", "ttft_ms"), "Answers of more tokens take no longer (correlation "),
        (
            lambda records: [{**one, "customer": one["id"]} for one in records],
            "Nearly all customers have a single conversation",
        ),
        (
            lambda records: [
                {**one, "time": one["time"] // 1000, "settled": one["settled"] // 1000} for one in records
            ],
            "times of the records may be in another unit than milliseconds",
        ),
        (
            lambda records: [
                {**one, "tier": REVERSED[one["tier"]], "tier_chosen": REVERSED[one["tier"]]} for one in records
            ],
            "conversations have more tokens than the cap of the tier that they name",
        ),
    ],
)
def test_records_that_are_other_than_they_seem_are_noted(
    records: list[Record], plain: Estimate, changed: Callable[[list[Record]], list[Record]], sentence: str
) -> None:
    """Each of these once fitted without a warning; the unchanged records have none of these notes."""
    found = briefly(changed(records))

    assert any(sentence in note for note in found.notes), found.notes
    assert not any(sentence in note for note in plain.notes), plain.notes


def test_a_call_that_was_exported_twice_counts_once(records: list[Record]) -> None:
    """The second record has another id; its tokens were once added to the conversation a second time."""
    twice = [*records, *({**record, "id": f"{record['id']}_again"} for record in records)]
    menus = {MENU["version"]: Menu.from_json(MENU)}

    seen, once = (seen_in_records(of, menus, own_tiers=False) for of in (twice, records))

    assert seen.set_aside["records_repeated"] == len(records)
    assert [counts.tokens.tolist() for counts in seen.lengths] == [counts.tokens.tolist() for counts in once.lengths]


@pytest.mark.parametrize("named", [True, False])
def test_choices_from_another_menu_than_the_one_that_is_named_are_refused(named: bool) -> None:
    """Caps and prices are exchanged: most chosen tiers are best for nobody, and once were dropped without a warning."""
    random = np.random.default_rng(1)
    chosen = list(talk(THREE, MENU, customers=200, conversations=10, random=random, named=named))
    swapped = menu_of(CHOOSING.prices_nanousd, tuple(cap or 0 for cap in CHOOSING.caps_tokens))

    with pytest.raises(CannotEstimate, match=r"[0-9,]+ of [0-9,]+ c.* took tiers that are best for nobody"):
        briefly(chosen, swapped, own_tiers=not named)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_value_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(
        CannotEstimate, match=r"The value of an answer is a number above 0 and at most 9007199254740991"
    ):
        Given(value, 0.0)


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_cost_that_is_none_is_refused(cost: float) -> None:
    with pytest.raises(CannotEstimate, match=r"The cost of a token is at least 0 and at most 9007199254740991"):
        Given(WORTH, cost)


def test_money_is_in_the_currency_of_the_records(records: list[Record]) -> None:
    """A fit uses the records' currency; another stated currency is refused."""
    euros = all_with(currency="EUR")(records)
    menu = {**MENU, "currency": "EUR"}
    seen = seen_in_records(euros, {menu["version"]: Menu.from_json(menu)}, own_tiers=False)

    assert Given(WORTH, 0.0).in_currency_of(seen).currency == "EUR"
    with pytest.raises(CannotEstimate, match=r"Worth and costs are in USD, the records in EUR\."):
        pricing.fit(euros, [menu], value_nanousd=WORTH, currency="USD", draws=2)


def test_one_figure_that_no_model_reaches_changes_nothing(records: list[Record], plain: Estimate) -> None:
    """A call of 2^52 tokens in some seconds once gave a speed of 10^11 tokens a second without a warning."""
    absurd = {
        **records[0],
        "id": "req_more",
        "conversation": "more",
        "output_tokens": 2**52,
        "billed_output_tokens": 2**52,
    }

    with_it = briefly([*records, absurd])

    assert with_it.set_aside["conversations_of_impossible_tokens"] == 1
    assert with_it.market == plain.market
