"""The route of ``/admin/audit``: who changed what, before and after."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import RowMapping

from gateway.admin.api.inputs import Moment, OneLine
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, Page, position_of
from gateway.admin.api.routes import AdminServices, Routes
from gateway.catalog import audit_rows
from gateway.clock import written
from gateway.ledger.cursors import cursor_of


class AuditRow(BaseModel):
    """One change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "seq": 41,
                    "time": "2026-11-01T09:30:00.000Z",
                    "actor": "token:5f1d0c9a7be2",
                    "action": "customer.tier",
                    "target": "cus_5bd0c1f2a47e9c3d10fa2b64",
                    "before": {"tier": "basic"},
                    "after": {"tier": "pro"},
                }
            ]
        }
    )

    seq: int
    time: Moment
    actor: str = Field(description="The token that was used, by the beginning of its SHA-256.")
    action: str = Field(description="The kind of change: `customer.create`, `key.rotate`, `tier.put`, …")
    target: str = Field(description="The id or name of the changed resource.")
    before: dict[str, Any] | None = Field(description="The state before; null for a new resource.")
    after: dict[str, Any] | None = Field(description="The state after; null for a removed resource.")


class AuditRows(Page[AuditRow]):
    """Changes, the latest first."""


class Audit:
    """The routes of ``/admin/audit``."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", "/audit", self.list, "List changes, the latest first")

    def list(
        self,
        target: Annotated[OneLine | None, Query(description="Only changes of this id or name.")] = None,
        action: Annotated[OneLine | None, Query(description="Only this kind of change.")] = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> AuditRows:
        """Who changed what, before and after. Rows are never removed; erasing a customer blanks its name in them."""
        before = None if cursor is None else position_of(cursor, int)[0]
        with self._database.read() as connection:
            rows = audit_rows.latest(connection, limit + 1, target=target, action=action, before=before)
        following = cursor_of(rows[limit - 1]["seq"]) if len(rows) > limit else None
        return AuditRows(data=[_shown(row) for row in rows[:limit]], next_cursor=following)


def _shown(row: RowMapping) -> AuditRow:
    facts = {side: None if row[side] is None else json.loads(row[side]) for side in ("before", "after")}
    return AuditRow(
        seq=row["seq"],
        time=written(row["time"]),
        actor=row["actor"],
        action=row["action"],
        target=row["target"],
        **facts,
    )
