"""Lists of customers: a tier's are those who have it, however they came to it."""

from __future__ import annotations

import pytest

from gateway.ledger.database import Database
from tests.gateway.admin.catalog.test_menu_rows import put_in_force
from tests.gateway.admin.operator import MONDAY, Clock, Operator


async def listed(operator: Operator, tier: str, limit: int) -> list[str]:
    """Return the ids of a tier's customers, page by page, having seen that each shows that tier."""
    found: list[str] = []
    cursor = ""
    while True:
        page = await operator.get(f"/admin/customers?tier={tier}&limit={limit}{cursor}")
        assert len(page["data"]) <= limit
        assert {customer["tier"] for customer in page["data"]} <= {tier}
        found += [customer["id"] for customer in page["data"]]
        if page["next_cursor"] is None:
            return sorted(found)
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_list_of_a_tiers_customers_has_those_that_a_publication_moved(
    operator: Operator, database: Database, clock: Clock, limit: int
) -> None:
    await operator.put("/admin/tiers/basic", {})
    await operator.put("/admin/tiers/pro", {})
    moved = [await operator.customer(tier="basic", period="day") for _ in range(3)]
    stays = await operator.customer(tier="pro", period="day")
    comes = await operator.customer(tier="pro", period="day")
    clock.ms += 1
    put_in_force(database, "v2", "middle", "pro", now_ms=clock.ms, effective="now", moves={"basic": "middle"})
    clock.ms += 1
    put_in_force(database, "v3", "large", "pro", now_ms=clock.ms, effective="now", moves={"middle": "large"})
    await operator.put(f"/admin/customers/{comes}/tier", {"tier": "large", "effective": "next_period"})

    assert [await listed(operator, tier, limit) for tier in ("basic", "middle", "large", "pro")] == [
        *([], [], sorted(moved), sorted([stays, comes]))
    ]
    clock.ms = MONDAY
    assert await listed(operator, "large", limit) == sorted([*moved, comes])
    assert await listed(operator, "pro", limit) == [stays]
