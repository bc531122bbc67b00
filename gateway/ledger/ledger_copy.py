"""Copies a ledger while it is written: as it is at one moment, without keeping its writers waiting."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select, text

from gateway.ledger.book.chain import GENESIS, MAIN
from gateway.ledger.book.seals import last_seal
from gateway.ledger.database import Database
from gateway.ledger.installation import installation_of
from gateway.ledger.tables import chains


@dataclass(frozen=True, slots=True)
class State:
    """The state of a ledger at one moment: its installation, last record and last seal."""

    installation: str | None
    currency: str | None
    seq: int
    hash: str
    seal: str | None


def state_of(connection: Connection) -> State:
    """Return the state of the ledger as this transaction sees it."""
    row = connection.execute(select(chains.c.seq, chains.c.hash).where(chains.c.chain == MAIN)).one_or_none()
    seq, digest = (0, GENESIS) if row is None else row
    owner, seal = installation_of(connection), last_seal(connection)
    return State(owner.id, owner.currency, seq, digest, seal.hash if seal else None)


def copy_file(source: Path, target: Path) -> None:
    """Copy an SQLite ledger, as it is at one moment, into one file, which needs no log beside it.

    The ledger is read in one step, under a snapshot: writers continue meanwhile, and their log is emptied afterwards.

    Raises:
        sqlite3.Error: the ledger cannot be read or the copy cannot be written.
    """
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as here,
        closing(sqlite3.connect(target)) as there,
    ):
        here.backup(there)
        there.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def snapshot(database: Database) -> Iterator[tuple[str, State]]:
    """Yield the name of a snapshot of a PostgreSQL ledger, which other sessions may read, and the state in it."""
    with database.unchanging() as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        name: str = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        yield name, state_of(connection)
