"""Which tier of which menu holds for a customer, and when a period starts, wherever the customer's clocks are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.holds.periods import next_start, period_at
from gateway.holds.terms import Change, Customer, Increase, Publication, Standing, Subscription, Timeline, standing

DAY = 86_400_000
ZONES = sorted(available_timezones())


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def customer(**changes: object) -> Customer:
    defaults: dict[str, object] = {
        **{"id": "acme", "status": "active", "tier": "small", "tier_since": 0, "next_tier": None, "next_tier_at": None},
        **{"period": "month", "timezone": "UTC", "overrides": {}, "rev": 1},
    }
    return Customer(**{**defaults, **changes})  # type: ignore[arg-type]


FIRST = Publication(1, "v1", 10, "now")


def test_a_menu_holds_from_its_publication_on() -> None:
    timeline = Timeline((FIRST, Publication(2, "v2", 20, "now")))

    assert standing(customer(), timeline, 9) == Standing("small", None, Change("small", "v1", 10))
    assert standing(customer(), timeline, 10).version == "v1"
    assert standing(customer(), timeline, 20) == Standing("small", "v2", None)


def test_a_menu_for_the_next_period_holds_from_each_customers_own_next_period_on() -> None:
    start = ms("2026-03-01T00:00:00+09:00")
    timeline = Timeline((FIRST, Publication(2, "v2", ms("2026-02-10T00:00:00+00:00"), "next_period")))
    far = customer(timezone="Asia/Tokyo")

    assert standing(far, timeline, start - 1) == Standing("small", "v1", Change("small", "v2", start))
    assert standing(far, timeline, start).version == "v2"
    assert standing(customer(), timeline, start).version == "v1", "it is still February in UTC"


def test_a_menu_that_waits_for_the_next_period_gives_way_to_one_published_after_it() -> None:
    start = ms("2026-03-01T00:00:00+00:00")
    waiting = Publication(2, "v2", ms("2026-02-10T00:00:00+00:00"), "next_period")
    timeline = Timeline((FIRST, waiting, Publication(3, "v1", ms("2026-02-11T00:00:00+00:00"), "now")))

    assert standing(customer(), timeline, start) == Standing("small", "v1", None)


def test_a_publication_moves_customers_of_a_tier_to_another() -> None:
    timeline = Timeline((FIRST, Publication(2, "v2", 20, "now", {"small": "little"})))

    assert standing(customer(), timeline, 20).tier == "little"
    assert standing(customer(tier_since=21), timeline, 25).tier == "small", "set after the move, it is a new name"


def test_a_tier_for_the_next_period_is_the_customers_then() -> None:
    waiting = customer(next_tier="large", next_tier_at=50)

    assert standing(waiting, Timeline((FIRST,)), 49) == Standing("small", "v1", Change("large", "v1", 50))
    assert standing(waiting, Timeline((FIRST,)), 50) == Standing("large", "v1", None)


def test_an_open_subscription_keeps_its_tier_and_menu_until_it_ends() -> None:
    subscribed = customer(subscription=Subscription("small", "v1", 10, 100))
    timeline = Timeline((FIRST, Publication(2, "v2", 20, "now", {"small": "little"})))

    assert standing(subscribed, timeline, 99) == Standing("small", "v1", Change("little", "v2", 100))
    assert standing(subscribed, timeline, 100) == Standing("little", "v2", None)
    assert standing(subscribed, Timeline((FIRST,)), 99) == Standing("small", "v1", None), "nothing is to come"


def test_customers_and_timelines_are_read_as_they_were_written() -> None:
    timeline = Timeline((FIRST, Publication(2, "v2", 20, "now", {"small": "little"})))
    raised = Increase({"period_tokens_max": 9}, 50)
    subscribed = customer(subscription=Subscription("small", "v1", 10, 100), increase=raised, notice_percents=(50, 90))

    assert Customer.from_json(subscribed.to_json()) == subscribed
    assert Customer.from_json(customer().to_json()) == customer()
    assert Timeline.from_json(timeline.to_json()) == timeline


@pytest.mark.parametrize(
    ("kind", "zone", "at", "start", "end"),
    [
        ("month", "UTC", "2024-02-29T12:00+00:00", "2024-02-01T00:00+00:00", "2024-03-01T00:00+00:00"),
        ("month", "UTC", "2026-01-31T23:59+00:00", "2026-01-01T00:00+00:00", "2026-02-01T00:00+00:00"),
        ("month", "Asia/Tokyo", "2026-01-31T15:00+00:00", "2026-02-01T00:00+09:00", "2026-03-01T00:00+09:00"),
        ("week", "UTC", "2026-11-22T12:00+00:00", "2026-11-16T00:00+00:00", "2026-11-23T00:00+00:00"),
        # A day of 23 hours, one of 25, and days whose midnight does not exist or comes twice.
        ("day", "Europe/Berlin", "2026-03-29T12:00+00:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00+00:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        ("day", "America/Asuncion", "2023-10-01T12:00+00:00", "2023-10-01T01:00-03:00", "2023-10-02T00:00-03:00"),
        ("day", "America/Havana", "2024-11-03T12:00+00:00", "2024-11-03T00:00-04:00", "2024-11-04T00:00-05:00"),
        # From half past eleven to half past twelve at once.
        ("day", "America/Toronto", "1919-03-31T12:00-04:00", "1919-03-31T00:30-04:00", "1919-04-01T00:00-04:00"),
    ],
)
def test_periods_are_of_the_customers_calendar(kind: str, zone: str, at: str, start: str, end: str) -> None:
    assert period_at(kind, zone, ms(at)) == (ms(start), ms(end))  # type: ignore[arg-type]


@given(
    st.sampled_from(("day", "week", "month")),
    st.sampled_from(ZONES),
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)),
)
def test_periods_are_half_open_and_follow_one_another(kind: str, zone: str, at: datetime) -> None:
    """Every moment is in its period, the next period starts where it ends, and both agree which day it is."""
    now = int(at.replace(tzinfo=UTC).timestamp() * 1000)
    start, end = period_at(kind, zone, now)  # type: ignore[arg-type]

    assert start <= now < end
    assert period_at(kind, zone, start) == (start, end)  # type: ignore[arg-type]
    assert period_at(kind, zone, end)[0] == end == next_start(kind, zone, now)  # type: ignore[arg-type]
    assert period_at(kind, zone, end - 1) == (start, end)  # type: ignore[arg-type]
    first = datetime.fromtimestamp(start / 1000, ZoneInfo(zone))
    before = datetime.fromtimestamp(start / 1000 - 1, ZoneInfo(zone))
    assert first.date() - before.date() >= timedelta(days=1) or kind != "day"


TRIED = Publication(7, "v1", 1_000, "now", arms={"dear": 0.1, "cheap": 0.2})
NEW = [customer(id=f"cus_{number}", created=1_000 + number) for number in range(3_000)]


def test_a_share_of_new_customers_has_another_menu_by_nothing_but_their_ids() -> None:
    """Of 3,000 as many as were asked for, but for chance; the same ones at any time and however they have changed."""
    timeline = Timeline.from_json(Timeline((TRIED,)).to_json())

    versions = [standing(one, timeline, 5_000).version for one in NEW]

    assert abs(versions.count("dear") - 300) < 80
    assert abs(versions.count("cheap") - 600) < 100
    assert versions.count("v1") + versions.count("dear") + versions.count("cheap") == 3_000
    moved = [replace(one, tier="large", tier_since=9_000, timezone="Asia/Tokyo", rev=9) for one in NEW]
    assert [standing(one, timeline, 90_000).version for one in moved] == versions


def test_who_was_there_before_an_experiment_is_in_none_of_its_arms() -> None:
    everywhere = replace(TRIED, arms={"dear": 1.0})

    assert standing(customer(created=999), Timeline((everywhere,)), 5_000).version == "v1"
    assert standing(customer(created=1_000), Timeline((everywhere,)), 5_000).version == "dear"


def test_an_experiment_ends_with_the_next_publication_and_another_one_draws_anew() -> None:
    over = Timeline((TRIED, Publication(8, "v1", 2_000, "now")))
    again = Timeline((TRIED, replace(TRIED, seq=9)))
    first = {one.id for one in NEW if standing(one, Timeline((TRIED,)), 5_000).version != "v1"}
    second = {one.id for one in NEW if standing(one, again, 5_000).version != "v1"}

    assert {standing(one, over, 5_000).version for one in NEW} == {"v1"}
    assert abs(len(first & second) - 0.09 * 3_000) < 80, "as many as chance puts into both"
