"""What an answer is worth: told by who takes which tier, and held against what the operator says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pricing.estimate.as_market import market_of, priced
from pricing.estimate.conversations import CannotEstimate
from pricing.estimate.fit import Given, fit
from pricing.estimate.leaving import examine
from pricing.estimate.mixing import Mixing
from pricing.estimate.readings import leaving_alone
from pricing.estimate.statistics import Statistics
from pricing.estimate.value import ValueTold, value_told
from pricing.estimated import estimated
from pricing.market import read_market
from tests.pricing.estimate.recovery import CHOOSING, THREE, lognormal_urgency, with_choices
from tests.pricing.estimate.simulated import Truth, answers_of, choosing, watch

KINDS = {"three": THREE, "lognormal": lognormal_urgency()}
CUSTOMERS, EACH = 300, 20


@dataclass(frozen=True)
class Seen:
    """Customers of a market who were seen to choose, and what their leaving alone tells."""

    truth: Truth
    statistics: Statistics
    leaving: Mixing

    def told(self, said: float, statistics: Statistics | None = None) -> ValueTold | None:
        """Return what choices tell where an answer was said to be worth so many times what it is."""
        seen = statistics or self.statistics
        lengths = [replace(answers_of(self.truth), value_nanousd=said * self.truth.value_nanousd)]
        return value_told(lengths, seen.offers, seen.customers, self.leaving, np.random.default_rng(3))


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    found = {}
    for name, truth in KINDS.items():
        random = np.random.default_rng(1)
        statistics = with_choices(CHOOSING)(truth, CUSTOMERS, EACH, random)
        leaving = leaving_alone(statistics, examine(statistics.customers, statistics.ages), random)
        found[name] = Seen(truth, statistics, leaving)
    return found


@pytest.mark.parametrize("said", [0.5, 0.7, 1.0, 1.3, 2.0])
def test_choices_tell_the_value_whatever_was_said_where_urgency_has_no_gaps(seen: dict[str, Seen], said: float) -> None:
    """Within a tenth; and what was said is ruled out where it is far from it, for too much and for too little."""
    told = seen["lognormal"].told(said)

    assert told is not None
    assert told.is_bounded
    assert told.best_nanousd == pytest.approx(1e9, rel=0.1)
    assert told.low_nanousd < 1e9 < told.high_nanousd < 1.5 * told.low_nanousd
    assert told.contradicts == (said not in (1.0, 1.3))


def test_with_few_kinds_of_customers_choices_leave_the_value_open(seen: dict[str, Seen]) -> None:
    """Thresholds that move between two kinds change nobody's choice; one that passes a kind does."""
    right, high, low = (seen["three"].told(said) for said in (1.0, 1.8, 0.7))

    assert right is not None
    assert high is not None
    assert low is not None
    assert right.low_nanousd < 1e9 * 1.1
    assert right.high_nanousd > 1.5e9
    assert (right.contradicts, high.contradicts, low.contradicts) == (False, False, True)


def test_a_tier_taken_for_an_account_tells_the_value_as_well() -> None:
    """All of one customer's conversations are one choice here, of a customer whose leaving is known."""
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
    alone = leaving_alone(statistics, examine(customers, None), np.random.default_rng(2))

    told, wrong = (Seen(truth, statistics, alone).told(said) for said in (1.0, 2.0))

    assert told is not None
    assert wrong is not None
    assert told.best_nanousd == pytest.approx(1e9, rel=0.15)
    assert not told.contradicts
    assert wrong.contradicts


def test_a_few_odd_choices_rule_nothing_out(seen: dict[str, Seen]) -> None:
    """One customer in two hundred takes a tier that no urgency of its kind explains."""
    statistics = seen["lognormal"].statistics
    [offer] = statistics.offers
    assert offer.taken is not None
    odd = replace(offer, refused=(offer.refused or 0) + sum(offer.taken) // 200)

    told = seen["lognormal"].told(1.0, replace(statistics, offers=(odd,)))

    assert told is not None
    assert not told.contradicts


@pytest.mark.parametrize(("kind", "said"), [("three", 0.7), ("lognormal", 1.5), ("lognormal", 2.0)])
def test_a_fit_refuses_a_value_that_the_choices_rule_out(seen: dict[str, Seen], kind: str, said: float) -> None:
    """Menus made with these earned .64, .06 and nothing of what could be earned, and nobody was told."""
    with pytest.raises(CannotEstimate, match=r"Customers chose as if an answer were worth .*, not [0-9,]+: "):
        fit(seen[kind].statistics, Given(said * 1e9, 0.0), draws=2, random=np.random.default_rng(4))


def test_a_fit_says_what_choices_tell_of_the_value(seen: dict[str, Seen]) -> None:
    estimate = fit(seen["lognormal"].statistics, Given(1e9, 0.0), draws=2, random=np.random.default_rng(5))
    beside = estimated(read_market(market_of(estimate, priced(estimate))))

    assert any(note.startswith("Choices tell that an answer is worth ") for note in estimate.notes)
    assert beside is not None
    assert beside.value is not None
    assert beside.value.low < beside.value.nanousd < beside.value.high < 1.5 * beside.value.low


def test_without_choices_a_fit_says_that_nothing_tells_the_value(seen: dict[str, Seen]) -> None:
    observed = replace(seen["three"].statistics, offers=())

    estimate = fit(observed, Given(1e9, 0.0), draws=2, random=np.random.default_rng(6))

    assert estimate.value is None
    assert any(note.startswith("Nobody's choice tells what an answer is worth") for note in estimate.notes)
