"""Applies a change to a customer, purely: from a row, the publications and the time it returns a row."""

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
    without_pending = replace(row, next_tier=None, next_tier_at=None)
    if tier == standing(without_pending.terms(), timeline, now_ms).tier:
        return without_pending
    if effective == "next_period":
        return replace(row, next_tier=tier, next_tier_at=next_start(row.period, row.timezone, now_ms))
    # A change of tier now ends the customer's paid period: the new tier's price is charged again.
    # A tier is a name of the menu in force, so the change is dated after the last publication, even if that was written
    # by a clock that was a little ahead: no move of an earlier menu's names may apply to the new tier.
    last = timeline.publications[-1].at if timeline.publications else -1
    return replace(without_pending, tier=tier, tier_since=max(now_ms, last + 1)).without_subscription(now_ms)


def with_change(row: CustomerRow, change: CustomerChange, timeline: Timeline, now_ms: int) -> CustomerRow:
    """Return a folded row with the fields that ``change`` sets."""
    fields_set = change.model_fields_set
    copied = {"name", "status", "period", "timezone", "external_id", "notice_percents"} & fields_set
    values: dict[str, Any] = {name: getattr(change, name) for name in copied}
    if "overrides" in fields_set:
        values["overrides"] = change.overrides.to_dict() if change.overrides else {}
    row = replace(row, **values)
    if {"period", "timezone"} & fields_set and row.next_tier_at is not None:
        row = replace(row, next_tier_at=next_start(row.period, row.timezone, now_ms))
    return with_tier(row, change.tier, "now", timeline, now_ms) if "tier" in fields_set else row


def to_come(row: CustomerRow, timeline: Timeline, now_ms: int) -> Iterator[tuple[int, Standing]]:
    """Yield the customer's standings from its latest tier on, through every change already decided."""
    since = max(now_ms, row.tier_since) if row.next_tier_at is None else row.next_tier_at
    return ahead(row.terms(), timeline, since)
