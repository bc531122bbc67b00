"""Lists end where their rows do: the last page, full or not, asks for no other, and no row is shown twice or never."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.admin.operator import Operator

ROWS = 4


async def pages(operator: Operator, path: str, limit: int) -> list[list[dict[str, Any]]]:
    """Return the rows of each page, as far as there is a cursor to another."""
    found: list[list[dict[str, Any]]] = []
    cursor = ""
    while True:
        page = await operator.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}")
        found.append(page["data"])
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def four_of(operator: Operator, what: str) -> str:
    """Make four rows, and return the list that has them and no other."""
    if what == "customers":
        for _ in range(ROWS):
            await operator.customer(status="blocked")
        return "/admin/customers?status=blocked"
    customer = await operator.customer()
    for _ in range(ROWS):
        await operator.post(f"/admin/customers/{customer}/keys")
    return f"/admin/customers/{customer}/keys" if what == "keys" else "/admin/audit?action=key.create"


@pytest.mark.parametrize("what", ["customers", "keys", "audit"])
@pytest.mark.parametrize(("limit", "sizes"), [(1, [1, 1, 1, 1]), (2, [2, 2]), (3, [3, 1]), (4, [4]), (5, [4])])
async def test_a_full_last_page_has_no_cursor_to_an_empty_one(
    operator: Operator, what: str, limit: int, sizes: list[int]
) -> None:
    found = await pages(operator, await four_of(operator, what), limit)

    assert [len(page) for page in found] == sizes
    names = {"customers": "id", "keys": "key_id", "audit": "seq"}
    assert len({row[names[what]] for page in found for row in page}) == ROWS


async def test_customers_that_were_created_in_the_same_moment_are_each_shown_once(operator: Operator) -> None:
    """The clock stands still: their ids decide."""
    created = {await operator.customer() for _ in range(5)}

    found = [row["id"] for page in await pages(operator, "/admin/customers", 2) for row in page]

    assert sorted(found) == sorted(created)
