"""An experiment from its proposal to what is learnt of it: new customers in arms, their records, their refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gateway.catalog import audit_rows, customer_rows, menu_rows, run_rows
from gateway.catalog.audit_rows import Audited
from gateway.catalog.customer_rows import CustomerRow
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.repricing.observed import ledger_statistics
from tests.gateway.admin.operator import Operator
from tests.gateway.cli.commands import tokencap
from tests.pricing.estimate.simulated import Truth
from tests.pricing.estimate.talking import DAY_MS, NOON, menu_of, talk

THREE = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3))
SOLD = menu_of((140, 1040, 4000), (60_000_000, 545_000_000, 625_000_000))
DEARER = menu_of((140, 1040, 4000), (80_000_000, 720_000_000, 830_000_000), "dearer")
BEGINS = NOON + 15 * DAY_MS
ENDS = BEGINS + 30 * DAY_MS


@pytest.fixture
def ledger(database: Database) -> Database:
    """Three kinds of customers who named their tiers for a fortnight: they leave open what an answer is worth."""
    with database.write() as connection:
        for menu, at in ((DEARER, NOON), (SOLD, NOON)):
            known = menu_rows.add_menu(connection, menu, source="manual", created=at)
            menu_rows.publish(connection, known, now_ms=at)
    append(database, list(talk(THREE, SOLD, customers=200, conversations=20, random=np.random.default_rng(1))))
    return database


def published_with(database: Database, arms: dict[str, float]) -> None:
    with database.write() as connection:
        menu = menu_rows.read_menu(connection, SOLD["version"])
        menu_rows.publish(connection, menu, now_ms=BEGINS, arms=arms)


def created(database: Database, number: int, tier: str | None) -> list[str]:
    """Create customers once the experiment has begun, and return who is in its arm."""
    with database.write() as connection:
        for each in range(number):
            row = CustomerRow(f"new_{each:04}", "New", tier, BEGINS, "active", "month", "UTC", BEGINS + 1 + each)
            customer_rows.add(connection, row)
    with database.read() as connection:
        timeline = menu_rows.read_timeline(connection)
        rows = [customer_rows.find(connection, f"new_{each:04}").terms() for each in range(number)]
    return [row.id for row in rows if menu_rows.in_force(timeline, ENDS, row) == "dearer"]


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
async def test_a_run_proposes_steps_within_its_limits_that_are_in_force_only_once_published(
    ledger: Database, ledger_url: str, operator: Operator, tmp_path: Path
) -> None:
    experiment = {"share": 0.3, "arms": 3, "price_factor_max": 1.4, "customers": 150}
    posted = await operator.post(
        "/admin/pricing/runs", {"value_nanousd": 1_000_000_000, "draws": 10, "experiment": experiment}
    )
    with ledger.write() as connection:
        taken = run_rows.take(connection, NOON + 40 * DAY_MS)
    assert taken is not None
    assert tokencap(tmp_path, "price", "run", taken.id, "1", database_url=ledger_url).returncode == 0

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    proposed = run["experiment"]

    assert proposed["menu_version"] == SOLD["version"]
    assert 1 <= len(proposed["arms"]) <= 3
    assert sum(proposed["arms"].values()) == pytest.approx(0.3)
    for arm in proposed["menus"]:
        shown = await operator.get(f"/admin/menus/{arm['version']}")
        for tier, before in zip(shown["tiers"], SOLD["tiers"], strict=True):
            assert tier["conversation_tokens_max"] == before["conversation_tokens_max"]
            assert 1 / 1.4 <= tier["price_nanousd"] / before["price_nanousd"] <= 1.4
    with ledger.read() as connection:
        assert menu_rows.in_force(menu_rows.read_timeline(connection), NOON + 60 * DAY_MS) == SOLD["version"]
    answer = await operator.post(f"/admin/menus/{SOLD['version']}/publish", {"arms": proposed["arms"]})
    assert answer["published"][-1]["arms"] == proposed["arms"]


async def test_choices_and_refusals_of_new_customers_are_read_under_the_menu_of_their_arm(ledger: Database) -> None:
    """Customers chose for their account, which the audit knows; who has no tier has refused what was in force for it."""
    published_with(ledger, {"dearer": 0.4})
    arm = created(ledger, 200, None)
    random = np.random.default_rng(2)
    talking = [f"new_{each:04}" for each in range(150)]
    records = []
    for menu, whom in (
        (SOLD, [one for one in talking if one not in arm]),
        (DEARER, [one for one in talking if one in arm]),
    ):
        calls = list(talk(THREE, menu, customers=len(whom), conversations=5, random=random, days=7, named=False))
        names = dict(zip(sorted({one["customer"] for one in calls}), whom, strict=False))
        later = ({name: one[name] + 16 * DAY_MS for name in ("time", "settled")} for one in calls)
        named = ({name: f"{menu['version']}_{one[name]}" for name in ("id", "conversation")} for one in calls)
        records += [
            one | moved | ids | {"customer": names[one["customer"]]}
            for one, moved, ids in zip(calls, later, named, strict=True)
        ]
    append(ledger, records)
    with ledger.write() as connection:
        chose = sorted({one["customer"] for one in records})
        audit_rows.record_all(
            connection, [Audited(BEGINS + DAY_MS, one, "customer.tier", one, None, None) for one in chose]
        )

    seen, _ = ledger_statistics(ledger, ENDS)

    prices = [offer.prices_nanousd for offer in seen.offers]
    control, dearer = (prices.index(tuple(tier["price_nanousd"] for tier in menu["tiers"])) for menu in (SOLD, DEARER))
    choices = seen.customers.choices
    assert choices is not None
    bought = {
        within: {one["customer"] for one in records if (one["customer"] in arm) == within} for within in (True, False)
    }
    assert int((choices[:, dearer] > 0).sum()) == len(bought[True])
    assert int((choices[:, control] > 0).sum()) == len(bought[False])
    assert int((choices[:, dearer] == 0).sum()) == len(set(arm) - bought[True])
    assert int((choices[:, control] == 0).sum()) == 200 - len(arm) - len(bought[False])
    assert not np.any((choices[:, control] >= 0) & (choices[:, dearer] >= 0))
