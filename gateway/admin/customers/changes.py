"""What a change makes of a customer, decided purely: a row, the publications and the time in, a row out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gateway.admin.customers.shapes import CustomerChange
from gateway.catalog.customer_rows import CustomerRow
from gateway.catalog.menu_rows import Effective, ahead
from gateway.holds.periods import next_start
from gateway.holds.terms import Standing, Timeline, standing


def with_tier(row: CustomerRow, tier: str | None, effective: Effective, timeline: Timeline, now_ms: int) -> CustomerRow:
    """Return a folded row with a tier from now on, or from the customer's next period on."""
    waits_for_nothing = replace(row, next_tier=None, next_tier_at=None)
    if tier == standing(waits_for_nothing.terms(), timeline, now_ms).tier:
        return waits_for_nothing
    if effective == "next_period":
        return replace(row, next_tier=tier, next_tier_at=next_start(row.period, row.timezone, now_ms))
    # Given another tier now, it has no paid period any more: what its new tier costs is charged anew.
    # A tier is a name of the menu in force, so it is set after the last publication, also where that one's clock
    # was a little ahead: no move of an earlier menu's names may apply to it.
    last = timeline.publications[-1].at if timeline.publications else -1
    return replace(waits_for_nothing, tier=tier, tier_since=max(now_ms, last + 1)).without_subscription(now_ms)


def with_change(row: CustomerRow, change: CustomerChange, timeline: Timeline, now_ms: int) -> CustomerRow:
    """Return a folded row with the fields of ``change`` that were given."""
    given = change.model_fields_set
    plain = {"name", "status", "period", "timezone", "external_id", "notice_percents"} & given
    values: dict[str, Any] = {name: getattr(change, name) for name in plain}
    if "overrides" in given:
        values["overrides"] = change.overrides.to_dict() if change.overrides else {}
    row = replace(row, **values)
    if {"period", "timezone"} & given and row.next_tier_at is not None:
        row = replace(row, next_tier_at=next_start(row.period, row.timezone, now_ms))
    return with_tier(row, change.tier, "now", timeline, now_ms) if "tier" in given else row


def to_come(row: CustomerRow, timeline: Timeline, now_ms: int) -> Iterator[tuple[int, Standing]]:
    """Yield where the tier that was set last leads: from the moment it holds through every change already decided."""
    since = max(now_ms, row.tier_since) if row.next_tier_at is None else row.next_tier_at
    return ahead(row.terms(), timeline, since)
