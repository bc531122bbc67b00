"""Every change leaves one row that says who did what, before and after; nothing else does."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.gateway.admin.operator import Clock, Operator, fields_of


async def audited(operator: Operator, query: str = "") -> list[dict[str, Any]]:
    return without_the_first((await operator.get(f"/admin/audit{query}"))["data"])


def without_the_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows but that of the admin token, which is made before anybody can change anything."""
    return [row for row in rows if row["action"] != "token.new"]


async def test_every_change_writes_one_row(operator: Operator) -> None:
    await operator.put("/admin/tiers/basic", {})
    customer = await operator.customer()
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "basic"})
    await operator.patch(f"/admin/customers/{customer}", {"status": "blocked"})
    key = await operator.post(f"/admin/customers/{customer}/keys")
    rotated = await operator.post(f"/admin/keys/{key['key_id']}/rotate")
    await operator.delete(f"/admin/keys/{rotated['key_id']}")
    await operator.delete(f"/admin/customers/{customer}")
    await operator.delete(f"/admin/customers/{customer}?erase=true")
    await operator.delete("/admin/tiers/basic")

    rows = [(row["action"], row["target"]) for row in reversed(await audited(operator))]

    assert rows == [
        ("tier.put", "basic"),
        ("customer.create", customer),
        ("customer.tier", customer),
        ("customer.change", customer),
        ("key.create", key["key_id"]),
        ("key.rotate", key["key_id"]),
        ("key.revoke", rotated["key_id"]),
        ("customer.delete", customer),
        ("customer.erase", customer),
        ("tier.delete", "basic"),
    ]


async def test_a_row_says_who_when_and_what_differs(operator: Operator, admin_token: str, clock: Clock) -> None:
    await operator.put("/admin/tiers/basic", {"price_nanousd": 1})
    customer = await operator.customer()
    clock.ms += 1

    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "basic"})

    (row,) = await audited(operator, "?action=customer.tier")
    assert row["actor"] == f"token:{hashlib.sha256(admin_token.encode()).hexdigest()[:12]}"
    assert row["time"] == "2026-11-01T12:00:00.001Z"
    assert (row["before"], row["after"]) == ({"tier": None}, {"tier": "basic"})


async def test_what_is_new_has_no_before_and_what_is_gone_no_after(operator: Operator) -> None:
    await operator.put("/admin/tiers/basic", {"price_nanousd": 1})
    await operator.delete("/admin/tiers/basic")

    gone, new = await audited(operator, "?target=basic")

    assert new["before"] is None
    assert new["after"]["price_nanousd"] == 1
    assert gone["before"] == new["after"]
    assert gone["after"] is None


async def test_a_refused_change_and_a_question_leave_no_row(operator: Operator) -> None:
    await operator.refused("POST", "/admin/customers", {"name": "Acme", "tier": "gold"})
    await operator.refused("DELETE", "/admin/tiers/gold")
    await operator.get("/admin/customers")

    assert await audited(operator) == []


async def test_rows_come_page_by_page_the_latest_first(operator: Operator) -> None:
    customers = [await operator.customer() for _ in range(5)]

    first = await operator.get("/admin/audit?limit=3")
    second = await operator.get(f"/admin/audit?limit=3&cursor={first['next_cursor']}")

    assert [row["target"] for row in without_the_first(first["data"] + second["data"])] == customers[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(("query", "field"), [("cursor=x", "cursor"), ("limit=0", "limit"), ("target=%00", "target")])
async def test_the_audit_refuses_what_it_does_not_understand(operator: Operator, query: str, field: str) -> None:
    assert fields_of(await operator.refused("GET", f"/admin/audit?{query}")) == {field}
