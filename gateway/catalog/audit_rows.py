"""Audit rows: who changed what, before and after; one row for each change, written in the transaction of the change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from gateway.ledger.tables import audit

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Audited:
    """One change, with the public facts of its target before and after it, which never include a secret."""

    time: int
    actor: str
    action: str
    target: str
    before: Facts | None
    after: Facts | None


def record(
    connection: Connection,
    *,
    time: int,
    actor: str,
    action: str,
    target: str,
    before: Facts | None,
    after: Facts | None,
) -> None:
    """Write one row. ``before`` and ``after`` are public facts of the target, which never include a secret."""
    record_all(connection, [Audited(time, actor, action, target, before, after)])


def record_all(connection: Connection, changes: Sequence[Audited]) -> None:
    """Write a row for each change."""
    rows = [
        {
            **{name: getattr(change, name) for name in ("time", "actor", "action", "target")},
            "before": _text(change.before),
            "after": _text(change.after),
        }
        for change in changes
    ]
    if rows:
        connection.execute(audit.insert(), rows)


def erase(connection: Connection, target: str, blanks: Facts) -> None:
    """Replace the fields named in ``blanks`` by its values, in all rows about ``target``."""
    rows = connection.execute(select(audit.c.seq, audit.c.before, audit.c.after).where(audit.c.target == target)).all()
    for seq, before, after in rows:
        blanked = {"before": _blanked(before, blanks), "after": _blanked(after, blanks)}
        connection.execute(update(audit).where(audit.c.seq == seq).values(**blanked))


def _text(facts: Facts | None) -> str | None:
    return None if facts is None else json.dumps(facts, separators=(",", ":"))


def _blanked(text: str | None, blanks: Facts) -> str | None:
    if text is None:
        return None
    facts = json.loads(text)
    return _text(facts | {field: blank for field, blank in blanks.items() if field in facts})


def latest(
    connection: Connection,
    limit: int,
    *,
    target: str | None = None,
    action: str | None = None,
    before: int | None = None,
) -> Sequence[RowMapping]:
    """Return audit rows, the latest first; if set, only those of a target, of an action, before a row number."""
    query = select(audit).order_by(audit.c.seq.desc()).limit(limit)
    if target is not None:
        query = query.where(audit.c.target == target)
    if action is not None:
        query = query.where(audit.c.action == action)
    if before is not None:
        query = query.where(audit.c.seq < before)
    return connection.execute(query).mappings().all()
