"""What cannot be is set aside with a count, from a ledger of either kind; the market is that of the other records."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from gateway.ledger.database import Database
from gateway.repricing.observed import ledger_statistics
from pricing.estimate.fit import Estimate, fit
from pricing.estimate.given import Given
from pricing.estimate.observations.conversations import DAY_MS, IMPOSSIBLE_TIMES, POOLED_MOST, WEEK_MS, CannotEstimate
from pricing.estimate.observations.gathering import UNKNOWN_TIER
from pricing.estimate.observations.statistics import VOLUME_MOST
from tests.gateway.cli.keeping import kept
from tests.pricing.estimate.simulated import BRIEF, Truth
from tests.pricing.estimate.talking import CALL, NOON, menu_of, talk

MENU = menu_of((140, 1040, None), (60_000_000, 545_000_000, 625_000_000))
CUSTOMERS = 300
CONVERSATIONS = 20
"""Of each customer; enough for leaving alone to tell who is how urgent."""

LATER = NOON + 4 * WEEK_MS
GIVEN = Given(value_nanousd=1e9, cost_nanousd_per_token=0.0)


@cache
def good(conversations: int = CONVERSATIONS, *, chosen: bool = False) -> tuple[dict[str, Any], ...]:
    truth, random = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3)), np.random.default_rng(1)
    return tuple(talk(truth, MENU, customers=CUSTOMERS, conversations=conversations, random=random, named=chosen))


def bad(number: int, customer: str = "cus_bad", **changes: Any) -> dict[str, Any]:
    """Return a record of a call that was served in a second, but for some changes."""
    time = NOON + 1000 * number
    return {
        **CALL,
        "id": f"bad_{number:08d}",
        "time": time,
        "settled": time + 1000,
        "customer": customer,
        "conversation": f"b{number}",
        "tier": "t1",
        "tier_chosen": "t1",
        "menu_version": MENU["version"],
        "output_tokens": 30,
        "billed_output_tokens": 30,
        "cap_tokens": 140,
        "finish": "complete",
        "ttft_ms": 400,
        "duration_ms": 1000,
        **changes,
    }


def estimated(url: str, records: list[dict[str, Any]], *, since_ms: int = 0) -> Estimate:
    if records:
        kept(url, records, MENU)
    database = Database(url)
    try:
        seen, _ = ledger_statistics(database, LATER, since_ms=since_ms)
    finally:
        database.close()
    return fit(seen, GIVEN, draws=4, random=np.random.default_rng(2), sweeps=BRIEF)


def as_without(found: Estimate) -> None:
    """Say that a market is that of the good records alone, but for the customer who had the bad ones."""
    shares = np.array([one["share"] for one in found.market["types"]])
    rates = np.array([one["urgency_per_s"] for one in found.market["types"]])
    reached = [float(shares[rates <= at].sum()) for at in (0.025, 0.09)]
    np.testing.assert_allclose(reached, (0.3, 0.7), atol=0.1)
    assert found.leaving.refused is None


def test_a_clock_that_jumped(ledger_url: str) -> None:
    """A call that took two days, and one that was settled two days before it began."""
    jumps = [bad(1, duration_ms=2 * DAY_MS), bad(2, settled=NOON - 2 * DAY_MS)]

    found = estimated(ledger_url, [*good(), *jumps])

    assert found.set_aside == {IMPOSSIBLE_TIMES: 2}
    as_without(found)


def test_negative_durations(ledger_url: str) -> None:
    found = estimated(ledger_url, [*good(), *(bad(number, duration_ms=-5, ttft_ms=None) for number in range(3))])

    assert found.set_aside == {IMPOSSIBLE_TIMES: 3}
    as_without(found)


def test_one_customer_who_hangs_up_without_end(ledger_url: str) -> None:
    """Its conversations are more than all the others' together: it counts neither as a customer nor by its choices, and
    of its answers and waits, which are added to those of all, no more than a hundred a week were."""
    hung_up = {"finish": "disconnect", "duration_ms": 4_000}
    usual = 4
    program = [bad(number, **hung_up) for number in range(VOLUME_MOST * usual + 1)]

    found = estimated(ledger_url, [*good(usual, chosen=True), *program])

    assert found.set_aside == {"customers_outsized": 1}
    assert found.length.counts.censored[found.length.counts.tokens == 30].sum() <= POOLED_MOST + 20
    as_without(found)


def test_records_of_deleted_tiers(ledger_url: str) -> None:
    gone = [bad(number, f"cus_{number:06d}", tier="gone", tier_chosen=None) for number in range(5)]

    found = estimated(ledger_url, [*good(), *gone])

    assert found.set_aside == {UNKNOWN_TIER: 5}
    as_without(found)


def test_an_empty_period(ledger_url: str) -> None:
    """No record at all, or none in the weeks that are asked for."""
    with pytest.raises(CannotEstimate, match=r"^0 customers are too few"):
        estimated(ledger_url, [])
    with pytest.raises(CannotEstimate, match=r"^0 customers are too few"):
        estimated(ledger_url, [*good(2)], since_ms=LATER - WEEK_MS)
