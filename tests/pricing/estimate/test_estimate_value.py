"""The value of an answer, estimated from choices of tiers, and compared with the value that the operator states."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from pricing.estimate.as_market import market_of, priced
from pricing.estimate.fit import Estimate, fit
from pricing.estimate.given import Given
from pricing.estimate.laws.taking import UNKNOWN, Slopes, chances_of, takers_of
from pricing.estimate.laws.value import ValueEstimate, value_by_choices
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import BOUGHT, Offer, Statistics
from pricing.market.estimated import estimated
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.tiers import best_tiers
from tests.pricing.estimate.crowds import crowd_of, watched
from tests.pricing.estimate.recovery import (
    CHOOSING,
    THREE,
    Case,
    earned,
    lognormal_urgency,
    plainly,
    profit_in,
    truth_of,
    with_choices,
)
from tests.pricing.estimate.simulated import BRIEF, Truth, answers_of, choosing, watch

KINDS = {"three": THREE, "lognormal": lognormal_urgency()}
CUSTOMERS, EACH = 300, 20
briefly = partial(fit, sweeps=BRIEF)


@dataclass(frozen=True)
class Seen:
    """Customers of a market whose choices were observed."""

    truth: Truth
    statistics: Statistics

    def estimate(self, stated: float, statistics: Statistics | None = None) -> ValueEstimate | None:
        """Return the value estimated from choices where ``stated`` times the true value was stated."""
        seen = statistics or self.statistics
        answers = replace(answers_of(self.truth), value_nanousd=stated * self.truth.value_nanousd)
        return value_by_choices(answers, [answers], seen.offers, seen.customers, np.random.default_rng(0))


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    found = {}
    for name, truth in KINDS.items():
        random = np.random.default_rng(1)
        found[name] = Seen(truth, with_choices(CHOOSING)(truth, CUSTOMERS, EACH, random))
    return found


@pytest.mark.parametrize("stated", [0.5, 0.7, 1.0, 1.3, 2.0])
def test_choices_tell_the_value_whatever_was_said_where_urgency_has_no_gaps(
    seen: dict[str, Seen], stated: float
) -> None:
    """300 customers tell the value within 15 %, and a stated value that is far too low or too high is ruled out."""
    estimate = seen["lognormal"].estimate(stated)

    assert estimate is not None
    assert estimate.is_bounded
    assert estimate.best_nanousd == pytest.approx(1e9, rel=0.15)
    assert estimate.low_nanousd < 1e9 < estimate.high_nanousd < 1.6 * estimate.low_nanousd
    assert estimate.contradicts == (stated not in (1.0, 1.3))


def test_with_few_kinds_of_customers_choices_leave_the_value_open(seen: dict[str, Seen]) -> None:
    """A threshold that moves between two kinds changes no choice; a threshold that passes a kind does."""
    right, high, low = (seen["three"].estimate(stated) for stated in (1.0, 1.8, 0.7))

    assert right is not None
    assert high is not None
    assert low is not None
    assert right.low_nanousd < 1e9 * 1.1
    assert right.high_nanousd > 1.5e9
    assert (right.contradicts, high.contradicts, low.contradicts) == (False, False, True)


def test_a_tier_taken_for_an_account_tells_the_value_as_well() -> None:
    """All conversations of a customer are one choice here, of a customer whose disconnects are known."""
    truth, kinds = KINDS["lognormal"], []
    parts = []
    for place in range(0, 40, 4):
        rate = truth.urgency_per_s[place + 2]
        one = Truth((rate,), (1.0,))
        parts.append(watch(one, customers=30, conversations=EACH, random=np.random.default_rng(place)))
        kinds.append(choosing(one, CHOOSING, 30, 1, np.random.default_rng(place)))
    them = [part.customers for part in parts]
    customers = replace(
        them[0],
        disconnects=np.concatenate([one.disconnects for one in them]),
        waited_s=np.concatenate([one.waited_s for one in them]),
        conversations=np.concatenate([one.conversations for one in them]),
        choices=np.concatenate(kinds),
        early=None,
        even=None,
        untimed=None,
        windows=None,
    )
    statistics = replace(parts[0], customers=customers, offers=(CHOOSING,))

    estimate, wrong = (Seen(truth, statistics).estimate(stated) for stated in (1.0, 2.0))

    assert estimate is not None
    assert wrong is not None
    assert estimate.best_nanousd == pytest.approx(1e9, rel=0.15)
    assert not estimate.contradicts
    assert wrong.contradicts


def test_a_few_odd_choices_rule_nothing_out(seen: dict[str, Seen]) -> None:
    """One customer in two hundred makes a choice that no urgency of its kind explains."""
    statistics = seen["lognormal"].statistics
    [offer] = statistics.offers
    assert offer.taken is not None
    odd = replace(offer, refused=(offer.refused or 0) + sum(offer.taken) // 200)

    estimate = seen["lognormal"].estimate(1.0, replace(statistics, offers=(odd,)))

    assert estimate is not None
    assert not estimate.contradicts


@pytest.mark.parametrize(("kind", "stated"), [("three", 0.7), ("lognormal", 1.5), ("lognormal", 2.0)])
def test_a_fit_refuses_a_value_that_the_choices_rule_out(seen: dict[str, Seen], kind: str, stated: float) -> None:
    """Menus made with these values earned 0.64, 0.06 and nothing of the maximum, without a warning."""
    with pytest.raises(CannotEstimate, match=r"Customers chose as if an answer were worth .*, not [0-9,]+: "):
        briefly(seen[kind].statistics, Given(stated * 1e9, 0.0), draws=2, random=np.random.default_rng(4))


def test_a_fit_says_what_choices_tell_of_the_value(seen: dict[str, Seen]) -> None:
    estimate = briefly(seen["lognormal"].statistics, Given(1e9, 0.0), draws=2, random=np.random.default_rng(5))
    beside = estimated(read_market(market_of(estimate, priced(estimate))))

    assert any(note.startswith("Choices tell that an answer is worth ") for note in estimate.notes)
    assert beside is not None
    assert beside.value is not None
    assert beside.value.low < beside.value.nanousd < beside.value.high < 1.6 * beside.value.low


def kept_in_truth(estimate: Estimate, value_nanousd: float) -> float:
    """Return the share of the maximum that the menu of four tiers earns in the market of three kinds at this value."""
    there = truth_of(Case(replace(THREE, value_nanousd=value_nanousd), plainly), estimate.length.identified_to_tokens)
    here = valuation_of(read_market(estimate.market))
    return profit_in(there, here, best_tiers(here, 4)[-1].caps) / profit_in(there, there, full_menu(there).caps)


def percentages(note: str) -> list[float]:
    """Return the percentages in a note, as shares from 0 to 1."""
    return [int(one) / 100 for one in re.findall(r"(\d+)%", note)]


def test_without_choices_a_fit_says_that_nothing_tells_the_value_and_what_a_wrong_one_costs(
    seen: dict[str, Seen],
) -> None:
    """The stated value is 1.25 times the true value, so the share noted for a fifth less is that at the true value."""
    observed = replace(seen["three"].statistics, offers=())

    estimate = briefly(observed, Given(1.25e9, 0.0), draws=2, random=np.random.default_rng(6))

    [note] = [one for one in estimate.notes if one.startswith("Nobody's choice tells what an answer is worth")]
    less, more = percentages(note)
    assert estimate.value is None
    assert less == pytest.approx(kept_in_truth(estimate, 1e9), abs=0.12)
    assert more == pytest.approx(kept_in_truth(estimate, 1.5e9), abs=0.12)


def test_where_choices_leave_the_value_open_a_fit_says_what_the_one_that_was_said_keeps(seen: dict[str, Seen]) -> None:
    estimate = briefly(seen["three"].statistics, Given(1.2e9, 0.0), draws=2, random=np.random.default_rng(5))

    [note] = [one for one in estimate.notes if one.startswith("Choices leave open what an answer is worth")]
    least, most = percentages(note)
    assert estimate.value is not None
    assert least == pytest.approx(kept_in_truth(estimate, estimate.value.low_nanousd), abs=0.12)
    assert most == pytest.approx(kept_in_truth(estimate, estimate.value.high_nanousd), abs=0.12)


def test_a_value_that_choices_contradict_is_told_with_what_its_menu_keeps() -> None:
    truth, random = KINDS["lognormal"], np.random.default_rng(0)
    statistics = watched(crowd_of(truth, 600, 30, random), truth, CHOOSING, random)

    estimate = briefly(statistics, Given(1.3e9, 0.0), draws=2, random=random)

    [note] = [one for one in estimate.notes if one.startswith("Choices contradict the value")]
    [kept] = percentages(note)
    assert "lose buyers" in note
    assert 0.6 < kept < 0.85


def test_all_values_at_once_climb_to_what_each_climbs_to_alone(seen: dict[str, Seen]) -> None:
    """The same steps row by row and value by value agree, for takers of a tier or of none, and unknown choices."""
    statistics, random = seen["lognormal"].statistics, np.random.default_rng(0)
    choices = random.integers(-2, 4, (CUSTOMERS, 1))
    customers = replace(statistics.customers, choices=choices)
    takers, values = takers_of(statistics.offers, customers), np.array([0.7e9, 1e9, 1.4e9])
    assert takers is not None
    chances = chances_of(statistics.offers, answers_of(KINDS["lognormal"]), values, takers)
    weight = random.poisson(takers.weight).astype(np.float64)

    found = Slopes(takers, chances).climb(None, 30, weight)

    for place, (option,) in enumerate(chances):
        tiers = {UNKNOWN: np.ones(len(option)), BOUGHT: option[:, 1:].sum(axis=1)} | dict(enumerate(option.T))
        joint = np.array([row * tiers[int(tier)] for row, (tier,) in zip(takers.likelihood, takers.taken, strict=True)])
        share = np.full(joint.shape[1], 1 / joint.shape[1])
        for _ in range(30):
            share = share * ((weight / (joint @ share)) @ joint) / weight.sum()
        np.testing.assert_allclose(found.share[place], share, rtol=1e-9, atol=1e-15)
        assert found.log_likelihood[place] == pytest.approx(float(weight @ np.log(joint @ share)), abs=1e-8)


@pytest.fixture(scope="module")
def by_accounts() -> list[ValueEstimate]:
    """Values from six crowds of 600 customers × 30 who took tiers for accounts, searched around the highest price."""
    truth, found = KINDS["lognormal"], []
    for seed in range(6):
        random = np.random.default_rng(seed)
        seen = watched(crowd_of(truth, 600, 30, random), truth, CHOOSING, random)
        answers = replace(answers_of(truth), value_nanousd=float(max(CHOOSING.prices_nanousd)))
        estimate = value_by_choices(
            answers, [answers], seen.offers, seen.customers, np.random.default_rng(0), is_said=False
        )
        assert estimate is not None
        found.append(estimate)
    return found


def test_a_value_that_nobody_said_is_told_by_tiers_taken_for_accounts(by_accounts: list[ValueEstimate]) -> None:
    """The estimate is within a tenth, and at most one of six intervals with 95 % coverage misses the truth."""
    for estimate in by_accounts:
        assert estimate.is_bounded
        assert estimate.best_nanousd == pytest.approx(1e9, rel=0.1)
        assert estimate.high_nanousd < 1.4 * estimate.low_nanousd

    assert sum(estimate.low_nanousd < 1e9 < estimate.high_nanousd for estimate in by_accounts) >= 5


def test_an_interval_is_as_wide_as_redrawn_customers_make_it(
    by_accounts: list[ValueEstimate], seen: dict[str, Seen]
) -> None:
    """The distribution of urgency adapts to the value: with the drop of chi-squared, all of a hundred intervals covered
    the truth. Where three kinds leave the value open, that greater drop is kept."""
    left_open = seen["three"].estimate(1.2)

    assert all(0.7 <= estimate.drop < 1.92 for estimate in by_accounts)
    assert left_open is not None
    assert left_open.drop == 1.92


def test_a_fit_estimates_the_value_and_menus_are_made_over_what_it_may_be() -> None:
    """Each draw has a value, with matching lengths and urgency; the menu earns what the true value would allow."""
    truth, random = KINDS["lognormal"], np.random.default_rng(2)
    statistics = watched(crowd_of(truth, 600, 30, random), truth, CHOOSING, random)

    estimate = briefly(statistics, Given(None, 0.0), draws=8, random=random)

    beside = estimated(read_market(market_of(estimate, priced(estimate))))
    assert beside is not None
    assert beside.value is not None
    assert beside.value.known_by == "estimated"
    assert beside.value.nanousd == pytest.approx(1e9, rel=0.1)
    values = [draw.value_nanousd[0] for draw in beside.draws]
    assert beside.value.low * 0.9 < min(values) < beside.value.nanousd < max(values) < beside.value.high * 1.1
    assert any(note.startswith("What an answer is worth is estimated from choices: ") for note in estimate.notes)
    assert earned(estimate, Case(truth, plainly)).menu > 0.9


def test_a_value_that_choices_leave_open_is_bounded_and_the_menu_loses_no_buyer() -> None:
    """With three kinds, every value from the truth to twice the truth assigns them to the same tiers."""
    random = np.random.default_rng(1)
    statistics = watched(crowd_of(THREE, 600, 30, random), THREE, CHOOSING, random)

    estimate = briefly(statistics, Given(None, 0.0), draws=8, random=random)

    assert estimate.value is not None
    assert estimate.value.low_nanousd < 1.06e9
    assert 1.7e9 < estimate.value.high_nanousd < 2.4e9
    assert any("which leave it open" in note for note in estimate.notes)
    assert earned(estimate, Case(THREE, plainly)).menu > 0.8


def test_values_that_put_the_same_kinds_into_the_same_tiers_are_alike_however_many_customers_there_are() -> None:
    """With 30,000 customers, an unconverged distribution is closer to its maximum at one value than at another."""
    truth, random = replace(THREE, value_nanousd=1.4e9), np.random.default_rng(1)
    statistics = watched(crowd_of(truth, 30_000, EACH, random), truth, CHOOSING, random)

    estimate = Seen(truth, statistics).estimate(1.0)

    assert estimate is not None
    assert estimate.low_nanousd < 1.06e9
    assert estimate.high_nanousd > 1.7e9
    assert not estimate.contradicts
    assert not estimate.disagrees


@pytest.mark.parametrize(("customers", "read"), [(300, 5), (31_000, 3)])
def test_many_customers_tell_lengths_surely_so_values_are_read_under_few_draws_of_them(
    customers: int, read: int
) -> None:
    """Each draw costs as much as the rest of the estimate, and with this many customers draws hardly differ."""
    truth, random = KINDS["lognormal"], np.random.default_rng(1)
    statistics = watched(crowd_of(truth, customers, 3, random), truth, CHOOSING, random)
    answers = answers_of(truth)

    estimate = value_by_choices(answers, [answers] * 5, statistics.offers, statistics.customers, random)

    assert estimate is not None
    assert len(estimate.chance) == read
    assert estimate.chance.sum() == pytest.approx(1)


@pytest.mark.parametrize(("price", "agrees"), [(625_000_000, True), (560_000_000, False)])
def test_choices_that_no_value_explains_with_how_customers_leave_are_refused(price: int, agrees: bool) -> None:
    """The largest tier was sold below the menu's price: no value puts its threshold where the choices show it."""
    truth, random = KINDS["lognormal"], np.random.default_rng(4)
    sold = replace(CHOOSING, prices_nanousd=(*CHOOSING.prices_nanousd[:2], price))
    statistics = replace(watched(crowd_of(truth, 600, 30, random), truth, sold, random), offers=(CHOOSING,))

    estimate = Seen(truth, statistics).estimate(1.0)

    assert estimate is not None
    assert estimate.agrees_p is not None
    assert estimate.disagrees != agrees
    if not agrees:
        with pytest.raises(CannotEstimate, match="No value of an answer explains both"):
            briefly(statistics, Given(None, 0.0), draws=2, random=random)


def test_without_prices_that_some_refuse_a_value_is_asked_for() -> None:
    """Everybody takes the one cheap tier, so an answer may have any value above its price."""
    truth, random = KINDS["lognormal"], np.random.default_rng(3)
    cheap = Offer((4000,), (1_000_000,))
    statistics = watched(crowd_of(truth, 300, 20, random), truth, cheap, random)

    with pytest.raises(CannotEstimate, match="Choices tell no more of what an answer is worth than at least"):
        briefly(statistics, Given(None, 0.0), draws=2, random=random)


def test_where_choices_hang_on_answers_that_nobody_saw_a_value_is_asked_for_with_the_reason() -> None:
    """Hardly any of 200 customers came near the cap of 4,000 tokens, which is the reason to buy the largest tier."""
    truth, random = KINDS["lognormal"], np.random.default_rng(41)
    statistics = watched(crowd_of(truth, 200, 20, random), truth, CHOOSING, random)

    with pytest.raises(
        CannotEstimate, match=r"The choice of the largest tiers of the menu depends on answers longer than all"
    ):
        briefly(statistics, Given(None, 0.0), draws=2, random=np.random.default_rng(41))


def test_without_choices_a_value_is_asked_for(seen: dict[str, Seen]) -> None:
    observed = replace(seen["three"].statistics, offers=())

    with pytest.raises(CannotEstimate, match="Nobody chose a tier for a price"):
        briefly(observed, Given(None, 0.0), draws=2, random=np.random.default_rng(6))
