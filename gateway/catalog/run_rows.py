"""Pricing runs in the ledger: one run at a time is carried out, by one process; another process takes over if it died.

queued ──take──▶ running ──finish──▶ done | refused | failed
   │                │ ▲ └─ silent for STALE_MS: taken up again, ATTEMPTS_MOST times in all
   └────cancel──────┴──▶ cancelled

A process whose run was cancelled or taken over finds that its attempt is no longer current, and writes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, or_, select, text, update

from gateway.catalog.problems import Conflict, NotFound
from gateway.ledger.tables import pricing_runs

STALE_MS = 30_000
ATTEMPTS_MOST = 3
GONE = "The process that worked on it ended without a result, three times."

RUNS_LOCK = 0x746F6B72756E7373  # PostgreSQL's advisory locks are numbers

runs = pricing_runs.c
OPEN = ("queued", "running")


@dataclass(frozen=True, slots=True)
class RunClaim:
    """A run that this process works on; ``attempt`` is its fence."""

    id: str
    attempt: int
    asked: dict[str, Any]
    actor: str

    def is_ours(self) -> tuple[ColumnElement[bool], ...]:
        return runs.id == self.id, runs.attempt == self.attempt, runs.state == "running"


class Replaced(Exception):
    """The run was cancelled, or another process has taken it up."""


def hold_still(connection: Connection) -> None:
    """Keep other processes from taking or scheduling a run until the transaction ends; on SQLite they wait already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": RUNS_LOCK})


def queue(connection: Connection, *, id: str, created: int, actor: str, asked: Mapping[str, Any]) -> None:  # noqa: A002
    """Queue a run behind the waiting runs."""
    values = {"id": id, "state": "queued", "created": created, "actor": actor, "asked": json.dumps(asked)}
    connection.execute(insert(pricing_runs).values(**values, attempt=0, percent=0))


def find(connection: Connection, run_id: str) -> Row[tuple[Any, ...]]:
    """Return a run.

    Raises:
        NotFound: there is no run with this id.
    """
    row = None
    if run_id.isprintable():
        row = connection.execute(select(pricing_runs).where(runs.id == run_id)).one_or_none()
    if row is None:
        raise NotFound(f"There is no pricing run {run_id[:64]!r}.")
    return row


def is_waiting(connection: Connection, now_ms: int) -> bool:
    """Return whether there is a run to take up: a silent run, or a queued run while no run is active."""
    running = connection.execute(select(runs.beat).where(runs.state == "running")).all()
    if any(row.beat > now_ms - STALE_MS for row in running):
        return False
    return (
        bool(running) or connection.execute(select(runs.id).where(runs.state == "queued").limit(1)).first() is not None
    )


def take(connection: Connection, now_ms: int) -> RunClaim | None:
    """Take up the oldest run, unless another run is active; call this in a transaction that writes."""
    hold_still(connection)
    silent = (runs.state == "running") & (runs.beat <= now_ms - STALE_MS)
    given_up = update(pricing_runs).where(silent, runs.attempt >= ATTEMPTS_MOST)
    connection.execute(given_up.values(state="failed", finished=now_ms, reason=GONE))
    if connection.execute(select(runs.id).where(runs.state == "running", ~silent)).first() is not None:
        return None
    oldest = select(pricing_runs).where(or_(runs.state == "queued", silent)).order_by(runs.created, runs.id).limit(1)
    row = connection.execute(oldest).one_or_none()
    if row is None:
        return None
    claim = RunClaim(row.id, row.attempt + 1, json.loads(row.asked), row.actor)
    values = {"state": "running", "attempt": claim.attempt, "beat": now_ms, "percent": 0, "doing": "starting"}
    connection.execute(update(pricing_runs).where(runs.id == row.id).values(**values, started=row.started or now_ms))
    return claim


def resumed(connection: Connection, run_id: str, attempt: int) -> RunClaim:
    """Return the run that another process has taken up for this process.

    Raises:
        Replaced: the run was cancelled or taken up again meanwhile.
    """
    own_run = select(pricing_runs).where(runs.id == run_id, runs.attempt == attempt, runs.state == "running")
    row = connection.execute(own_run).one_or_none()
    if row is None:
        raise Replaced
    return RunClaim(row.id, row.attempt, json.loads(row.asked), row.actor)


def release(connection: Connection, claim: RunClaim, now_ms: int) -> None:
    """Queue a run again whose process ended without a result; after ATTEMPTS_MOST attempts, mark it as failed."""
    own_run = update(pricing_runs).where(*claim.is_ours())
    if claim.attempt >= ATTEMPTS_MOST:
        connection.execute(own_run.values(state="failed", finished=now_ms, reason=GONE, doing=None))
    else:
        connection.execute(own_run.values(state="queued", doing=None, percent=0))


def beat(connection: Connection, claim: RunClaim, now_ms: int, doing: str, percent: int) -> None:
    """Record that the run is alive, and its progress.

    Raises:
        Replaced: the run no longer belongs to this process.
    """
    values = {"beat": now_ms, "doing": doing, "percent": percent}
    if not connection.execute(update(pricing_runs).where(*claim.is_ours()).values(**values)).rowcount:
        raise Replaced


def finish(
    connection: Connection,
    claim: RunClaim,
    now_ms: int,
    *,
    state: str,
    reason: str | None,
    result: Mapping[str, Any] | None = None,
    draft: Mapping[str, Any] | None = None,
    published: int | None = None,
) -> None:
    """Write the result of a run.

    Raises:
        Replaced: the run no longer belongs to this process.
    """
    values = {
        "state": state,
        "finished": now_ms,
        "reason": reason,
        "result": None if result is None else json.dumps(result),
        "draft": None if draft is None else json.dumps(draft),
        "published": published,
        "doing": None,
        "percent": 100,
    }
    if not connection.execute(update(pricing_runs).where(*claim.is_ours()).values(**values)).rowcount:
        raise Replaced


def cancel(connection: Connection, run_id: str, now_ms: int) -> None:
    """End a run that has not ended.

    Raises:
        NotFound: there is no run with this id.
        Conflict: the run has ended.
    """
    find(connection, run_id)
    ended = update(pricing_runs).where(runs.id == run_id, runs.state.in_(OPEN))
    if not connection.execute(ended.values(state="cancelled", finished=now_ms, doing=None)).rowcount:
        raise Conflict("This run has ended already.", code="run_ended")


def last_created(connection: Connection) -> int | None:
    """Return when the last run was queued, ms."""
    query = select(runs.created).order_by(runs.created.desc()).limit(1)
    return connection.execute(query).scalar_one_or_none()


def read_page(connection: Connection, limit: int, after: tuple[int, str] | None) -> Sequence[Row[Any]]:
    """Return runs, the latest first, after a position."""
    table = pricing_runs.c
    query = select(pricing_runs).order_by(table.created.desc(), table.id.desc()).limit(limit)
    if after is not None:
        query = query.where((table.created < after[0]) | ((table.created == after[0]) & (table.id < after[1])))
    return connection.execute(query).all()
