"""Entries of the usage streams that the book cannot hold: stored whole and counted; a person decides about them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.book.entries import Malformed
from gateway.ledger.database import Database
from gateway.ledger.tables import usage_dead_letters


def keep_dead_letters(connection: Connection, malformed: Sequence[Malformed]) -> None:
    """Store entries in the transaction that books the rest of their batch.

    An entry that is already stored does not change, so a batch may be written twice.
    """
    if not malformed:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    rows = [
        {"stream": found.entry.stream, "entry": found.entry.id, "reason": found.reason, "body": found.entry.written()}
        for found in malformed
    ]
    connection.execute(dialect.insert(usage_dead_letters).on_conflict_do_nothing(), rows)


def count_dead_letters(database: Database) -> int:
    """Return how many dead letters there are; if there are any, a person has to decide about them."""
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(usage_dead_letters)).scalar_one()


def streams_with_dead_letters(database: Database) -> set[str]:
    """Return the streams that have a dead letter."""
    with database.read() as connection:
        return set(connection.execute(select(usage_dead_letters.c.stream).distinct()).scalars())


def read_dead_letters(database: Database, limit: int = 100) -> list[dict[str, str]]:
    """Return dead letters in the order of stream and entry, each with ``stream``, ``entry``, ``reason``, ``body``."""
    query = select(usage_dead_letters).order_by(usage_dead_letters.c.stream, usage_dead_letters.c.entry).limit(limit)
    with database.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
