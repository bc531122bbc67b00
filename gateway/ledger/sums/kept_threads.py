"""Keeps the threads of recent answers, so that an agent continues its conversation after Redis is lost.

A settlement in Redis writes the same threads (`gateway/holds/lua/settle.lua`); the rows here follow the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import orjson
from sqlalchemy import Connection, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds.store.threads import KEPT_MS
from gateway.ledger.book.entries import Entry
from gateway.ledger.database import Database
from gateway.ledger.tables import conversation_threads as table
from pricing.usage import UsageRecord

MARK = b'"threads":'
THREAD = re.compile(r"(?:tool|tail|answer|item)-[0-9a-f]{32}")
SEVERAL = ""
"""Replaces the conversation of a thread that leads to several conversations."""


def threads_in(entry: Entry) -> list[str]:
    """Return the threads that the settlement of an entry's record wrote.

    A settlement whose conversation had already ended wrote no threads; its entry has no cap either.
    """
    raw = entry.fields[b"record"]
    if MARK not in raw or b"cap" not in entry.fields:
        return []
    found = orjson.loads(raw).get("threads")
    if not isinstance(found, list):
        return []
    return [thread for thread in found if isinstance(thread, str) and THREAD.fullmatch(thread)]


def keep_threads(connection: Connection, threads: Mapping[str, Sequence[str]], appended: Sequence[UsageRecord]) -> None:
    """Store the ``threads`` of the records just appended, by record id, and remove threads that have expired.

    A thread that leads to two conversations leads to none, except that of two answers that were cut in the same text
    the later counts.
    """
    rows = [
        {
            "customer": record["customer"],
            "thread": thread,
            "conversation": record["conversation"],
            "settled": record["settled"],
        }
        for record in appended
        for thread in threads.get(record["id"], ())
    ]
    if not rows:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    new = statement.excluded
    leads_to_one = or_(table.c.conversation == new.conversation, table.c.thread.like("tail-%"))
    statement = statement.on_conflict_do_update(
        index_elements=["customer", "thread"],
        set_={"conversation": case((leads_to_one, new.conversation), else_=SEVERAL), "settled": new.settled},
    )
    connection.execute(delete(table).where(table.c.settled < min(row["settled"] for row in rows) - KEPT_MS))
    connection.execute(statement, rows)


def kept_threads(database: Database, customers: Sequence[str], since_ms: int) -> Iterable[tuple[str, str, str, int]]:
    """Return customer, thread, conversation and the time of settling (ms) of the threads settled after ``since_ms``."""
    query = select(table.c.customer, table.c.thread, table.c.conversation, table.c.settled)
    with database.read() as connection:
        rows = connection.execute(query.where(table.c.customer.in_(customers), table.c.settled > since_ms)).all()
    return [(row.customer, row.thread, row.conversation, row.settled) for row in rows]
