"""Publications: in one order, never stranding a customer, and forgotten only where nobody's standing needs them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import customer_rows, menu_rows
from gateway.catalog.customer_rows import CustomerRow
from gateway.catalog.menu_rows import SKEW_MS, ahead, still_needed
from gateway.catalog.problems import AlreadyExists, Conflict, Invalid, NotFound
from gateway.holds.periods import PeriodKind
from gateway.holds.terms import Customer, Publication, Timeline, standing
from gateway.ledger.database import Database
from pricing.menus.menu import Menu
from tests.gateway.admin.operator import MONDAY, NOON

DAY_MS = 86_400_000
NAMES = ("a", "b", "c")


def menu_body(version: str, *names: str) -> dict[str, Any]:
    tiers = [{"name": name, "conversation_tokens_max": 1} for name in names]
    return {"version": version, "created": "x", "currency": "USD", "bill": "conversation", "tiers": tiers}


def put_in_force(database: Database, version: str, *names: str, now_ms: int = NOON, **how: Any) -> Publication:
    with database.write() as connection:
        menu_rows.hold_still(connection, to_publish=True)
        menu = menu_rows.add_menu(connection, menu_body(version, *names), source="manual", created=now_ms)
        return menu_rows.publish(connection, menu, now_ms=now_ms, **how)


def add_customer(database: Database, customer_id: str, tier: str, period: PeriodKind = "month") -> None:
    row = CustomerRow(customer_id, customer_id, tier, NOON, "active", period, "UTC", NOON)
    with database.write() as connection:
        customer_rows.add(connection, row)


def timeline_of(database: Database) -> Timeline:
    with database.read() as connection:
        return menu_rows.read_timeline(connection)


def test_publications_are_read_as_they_were_made(database: Database) -> None:
    first = put_in_force(database, "v1", "a")
    second = put_in_force(database, "v2", "b", now_ms=NOON + 5, effective="next_period", moves={"a": "b"})

    assert timeline_of(database).publications == (first, second)
    assert timeline_of(database).rev == second.seq
    assert second.moves == {"a": "b"}


def test_a_clock_that_is_behind_does_not_publish_into_the_past(database: Database) -> None:
    put_in_force(database, "v1", "a", now_ms=NOON)

    second = put_in_force(database, "v2", "b", now_ms=NOON - 1000)

    assert second.at == NOON
    assert menu_rows.in_force(timeline_of(database), NOON) == "v2"


def test_a_menu_never_changes(database: Database) -> None:
    put_in_force(database, "v1", "a")

    with pytest.raises(AlreadyExists):
        put_in_force(database, "v1", "b")
    with database.read() as connection, pytest.raises(NotFound):
        menu_rows.read_menu(connection, "v2")


def test_a_menu_that_lacks_a_customers_tier_is_not_put_in_force(database: Database) -> None:
    put_in_force(database, "v1", "a", "b")
    add_customer(database, "cus_1", "a")
    add_customer(database, "cus_2", "b")
    add_customer(database, "cus_3", "b")

    with pytest.raises(Conflict) as refused:
        put_in_force(database, "v2", "c", moves={"a": "c"})

    assert refused.value.more["tiers"] == {"b": {"count": 2, "customers": ["cus_2", "cus_3"]}}
    assert timeline_of(database).rev == 1


def test_moves_take_customers_along(database: Database) -> None:
    put_in_force(database, "v1", "a", "b")
    add_customer(database, "cus_1", "a", "week")

    put_in_force(database, "v2", "c", now_ms=NOON + 1, effective="next_period", moves={"a": "c", "b": "c"})

    with database.read() as connection:
        customer = customer_rows.find(connection, "cus_1").terms()
    stands = list(ahead(customer, timeline_of(database), NOON + 1))
    assert [(at, after.tier, after.version) for at, after in stands] == [(NOON + 1, "a", "v1"), (MONDAY, "c", "v2")]


def test_nothing_moves_to_a_tier_that_the_menu_lacks(database: Database) -> None:
    put_in_force(database, "v1", "a")

    with pytest.raises(Invalid) as refused:
        put_in_force(database, "v2", "b", moves={"a": "z"})

    assert refused.value.more["errors"][0]["field"] == "moves.a"


def test_a_menus_public_part_is_what_is_kept_of_it_for_serving(database: Database) -> None:
    put_in_force(database, "v1", "a")

    with database.read() as connection:
        assert menu_rows.read_menu(connection, "v1") == Menu.from_json(menu_body("v1", "a"))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Publications at falling distances, some waiting for a period, a few moving tiers."""
    at, publications = 0, []
    for seq in range(1, draw(st.integers(1, 12)) + 1):
        at += draw(st.sampled_from([0, 1, SKEW_MS - 1, SKEW_MS, DAY_MS, 8 * DAY_MS, 32 * DAY_MS]))
        effective = draw(st.sampled_from(["now", "now", "next_period"]))
        moves = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=2) | st.just({}))
        publications.append(Publication(seq, f"v{seq}", NOON + at, effective, moves))
    return Timeline(tuple(publications))


@st.composite
def customers(draw: st.DrawFn) -> Customer:
    since = draw(st.integers(0, 100 * DAY_MS))
    next_at = draw(st.none() | st.integers(since, 200 * DAY_MS).map(lambda ms: NOON + ms))
    return Customer(
        id="cus_1",
        status="active",
        tier=draw(st.none() | st.sampled_from(NAMES)),
        tier_since=NOON + since,
        next_tier=draw(st.none() | st.sampled_from(NAMES)) if next_at else None,
        next_tier_at=next_at,
        period=draw(st.sampled_from(["day", "week", "month"])),
        timezone=draw(st.sampled_from(["UTC", "Pacific/Kiritimati", "America/St_Johns"])),
        overrides={},
        rev=1,
    )


@settings(max_examples=100)
@given(timelines(), customers(), st.integers(-SKEW_MS, 70 * DAY_MS))
def test_what_is_forgotten_changes_nobodys_standing(timeline: Timeline, customer: Customer, later_ms: int) -> None:
    now_ms = timeline.publications[-1].at + later_ms

    short = still_needed(timeline)

    assert standing(customer, short, now_ms) == standing(customer, timeline, now_ms)
    assert short.rev == timeline.rev


def test_a_thousand_hand_typed_changes_leave_a_short_timeline() -> None:
    typed = tuple(Publication(seq, f"v{seq}", NOON + seq * 60_000, "now") for seq in range(1, 1001))

    short = still_needed(Timeline(typed))

    assert len(short.publications) <= SKEW_MS // 60_000 + 2
    assert short.publications[-1] == typed[-1]


def test_a_publication_that_moves_tiers_is_never_forgotten() -> None:
    moving = Publication(1, "v1", NOON, "now", {"a": "b"})
    typed = tuple(Publication(seq, f"v{seq}", NOON + seq * DAY_MS, "now") for seq in range(2, 100))

    assert still_needed(Timeline((moving, *typed))).publications[0] == moving


def test_no_publication_is_none_needed() -> None:
    assert still_needed(Timeline()) == Timeline()
    assert menu_rows.in_force(Timeline(), NOON) is None


def test_an_experiment_is_read_as_it_was_published(database: Database) -> None:
    put_in_force(database, "v1", "a", "b")
    put_in_force(database, "dear", "a", "b")

    tried = put_in_force(database, "v2", "b", "a", arms={"dear": 0.25})

    assert timeline_of(database).publications[-1] == tried
    assert timeline_of(database).versions == {"v1", "v2", "dear"}


@pytest.mark.parametrize(
    ("arms", "field"),
    [({"other": 0.1}, "arms.other"), ({"none": 0.1}, "arms.none"), ({"same": 0.7, "v1": 0.4}, "arms")],
)
def test_an_arm_is_a_menu_of_the_same_tiers_and_all_have_no_more_than_everybody(
    database: Database, arms: dict[str, float], field: str
) -> None:
    for version, names in (("v1", "ab"), ("same", "ab"), ("other", "ac")):
        put_in_force(database, version, *names)

    with pytest.raises(Invalid) as refused:
        put_in_force(database, "v2", "a", "b", arms=arms)

    assert refused.value.more["errors"][0]["field"] == field
    assert len(timeline_of(database).publications) == 3
