"""The routes of ``/admin/pricing/runs``: recompute the menu from what customers did, in the background."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import Connection, Row

from gateway.admin.api.idempotency import Keep, Post, Replies
from gateway.admin.api.inputs import Input, Moment
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, Page, position_of
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.menus.run_input import RunInput
from gateway.catalog import audit_rows, run_rows
from gateway.clock import written
from gateway.ledger.cursors import cursor_of

State = Literal["queued", "running", "done", "refused", "failed", "cancelled"]


class RunShown(BaseModel):
    """A run. `estimates`, `comparison`, `draft` and `experiment` are present once it is done; a refused run has the
    results that were computed before its refusal."""

    id: str
    state: State = Field(description="`refused`: it ended without a menu that should be sold; `reason` says why.")
    created: Moment
    started: Moment | None
    finished: Moment | None
    progress: dict[str, Any] = Field(description="`percent`, and the present step, `doing`.")
    asked: dict[str, Any]
    reason: str | None = Field(description="Why there is no draft, or why it was not put in force automatically.")
    estimates: dict[str, Any] | None = Field(description="The market with its intervals, notes and what was set aside.")
    comparison: dict[str, Any] | None = Field(
        description="Draft and menu in force on the estimated market: who moves, who pays more, profit and surplus by "
        "type, and the recorded traffic under the draft."
    )
    draft: dict[str, Any] | None = Field(description="`menu.json`. Publish it as any other menu, by its version.")
    experiment: dict[str, Any] | None = Field(
        description="Menus to try, by publishing `menu_version` again with these `arms`, and how far they tell values "
        "apart."
    )
    published: Moment | None


class RunsShown(Page[RunShown]):
    """Runs, the latest first; without estimates, comparison, draft and experiment."""


class PricingRuns:
    """Each run has its own process, one run at a time; the menu in force stays until a draft is published."""

    def __init__(self, services: AdminServices, replies: Replies) -> None:
        self._services = services
        self._database = services.database
        self._replies = replies

    def add_to(self, routes: Routes) -> None:
        path = "/pricing/runs/{run_id}"
        routes.add("POST", "/pricing/runs", self.post, "Recompute the menu in the background", 409)
        routes.add("GET", "/pricing/runs", self.list, "List pricing runs, the latest first")
        routes.add("GET", path, self.read, "Read a pricing run: state, progress, estimates, draft", 404)
        routes.add("POST", f"{path}/cancel", self.cancel, "End a run that has not ended", 404, 409)

    def post(self, posted: Post, body: RunInput | None = None) -> RunShown:
        """Queue a run. It waits until earlier runs have ended; the menu in force stays as it is."""
        request = body or RunInput()

        def change(keep: Keep) -> RunShown:
            run_id, now = self._services.new_id("run"), self._services.now_ms()
            with self._database.write() as connection:
                parameters = request.model_dump(mode="json")
                run_rows.queue(connection, id=run_id, created=now, actor=posted.actor, asked=parameters)
                answer = _shown(run_rows.find(connection, run_id))
                self._record(connection, posted.actor, "pricing.run", run_id, parameters)
                keep(connection, answer)
            return answer

        return self._replies.once(posted, request, RunShown, change)

    def list(self, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> RunsShown:
        """List runs, the latest first."""
        after = None if cursor is None else position_of(cursor, int, str)
        with self._database.read() as connection:
            rows = run_rows.read_page(connection, limit + 1, after)
        last = rows[limit - 1] if len(rows) > limit else None
        return RunsShown(
            data=[_shown(row, with_result=False) for row in rows[:limit]],
            next_cursor=cursor_of(last.created, last.id) if last else None,
        )

    def read(self, run_id: str) -> RunShown:
        """Return a run in its present state."""
        with self._database.read() as connection:
            return _shown(run_rows.find(connection, run_id))

    def cancel(self, run_id: str, posted: Post) -> RunShown:
        """End a run. Its process stops within a second or two, and no menu of it is published."""

        def change(keep: Keep) -> RunShown:
            with self._database.write() as connection:
                run_rows.cancel(connection, run_id, self._services.now_ms())
                self._record(connection, posted.actor, "pricing.cancel", run_id, {})
                answer = _shown(run_rows.find(connection, run_id))
                keep(connection, answer)
            return answer

        return self._replies.once(posted, Input(), RunShown, change)

    def _record(self, connection: Connection, actor: str, action: str, run_id: str, after: dict[str, Any]) -> None:
        now = self._services.now_ms()
        audit_rows.record(connection, time=now, actor=actor, action=action, target=run_id, before=None, after=after)


def _shown(row: Row[tuple[Any, ...]], *, with_result: bool = True) -> RunShown:
    result: dict[str, Any] = json.loads(row.result) if with_result and row.result else {}
    return RunShown(
        id=row.id,
        state=row.state,
        created=written(row.created),
        started=None if row.started is None else written(row.started),
        finished=None if row.finished is None else written(row.finished),
        progress={"percent": row.percent, "doing": row.doing},
        asked=json.loads(row.asked),
        reason=row.reason,
        estimates=result.get("estimates"),
        comparison=result.get("comparison"),
        draft=json.loads(row.draft) if with_result and row.draft else None,
        experiment=result.get("experiment"),
        published=None if row.published is None else written(row.published),
    )
