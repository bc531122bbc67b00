"""What a change makes of a customer, without any ledger: rows in, rows out."""

from __future__ import annotations

from gateway.admin.customers.changes import to_come, with_tier
from gateway.catalog.customer_rows import CustomerRow, folded
from gateway.holds.terms import Publication, Timeline, standing
from tests.gateway.admin.operator import MONDAY, NOON

ACME = CustomerRow("cus_1", "Acme", "a", NOON - 1, "active", "day", "UTC", 0)


def test_a_tier_set_in_the_moment_of_a_publication_is_a_name_of_the_new_menu() -> None:
    """Menu v2 calls ``b`` what v1 called ``a``, and calls something else ``a``: that is the one that was asked for."""
    swapped = Timeline((Publication(1, "v1", 0, "now"), Publication(2, "v2", NOON, "now", {"a": "b", "b": "a"})))
    assert standing(ACME.terms(), swapped, NOON).tier == "b"

    row = with_tier(ACME, "a", "now", swapped, NOON)

    assert standing(row.terms(), swapped, NOON).tier == "a"


def test_a_tier_set_by_a_clock_that_is_behind_the_publications_is_not_moved_by_it() -> None:
    ahead = Timeline((Publication(1, "v1", 0, "now"), Publication(2, "v2", NOON + 50, "now", {"c": "d"})))

    row = with_tier(ACME, "c", "now", ahead, NOON)

    assert standing(row.terms(), ahead, NOON + 50).tier == "c"


def test_a_tier_that_waits_is_moved_by_what_is_published_meanwhile() -> None:
    waiting = with_tier(ACME, "c", "next_period", Timeline((Publication(1, "v1", 0, "now"),)), NOON)
    later = Timeline((Publication(1, "v1", 0, "now"), Publication(2, "v2", NOON, "next_period", {"c": "d"})))

    stands = [(at, each.tier, each.version) for at, each in to_come(waiting, later, NOON)]

    assert stands == [(MONDAY, "d", "v2")]


def test_folding_leaves_the_standing_as_it_is() -> None:
    timeline = Timeline((Publication(1, "v1", 0, "now"), Publication(2, "v2", MONDAY, "now", {"c": "d"})))
    waiting = with_tier(ACME, "c", "next_period", timeline, NOON)

    for now_ms in (NOON, MONDAY - 1, MONDAY, MONDAY + 1):
        assert standing(folded(waiting, now_ms).terms(), timeline, now_ms) == standing(
            waiting.terms(), timeline, now_ms
        )
