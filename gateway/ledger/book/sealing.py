"""Seals the chain: puts every thousand rows, or the rows present a minute after the last seal, under a Merkle root."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.book.chain import MAIN
from gateway.ledger.book.merkle import leaf_of
from gateway.ledger.book.seals import Seal, following, last_seal
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS, record_of
from gateway.ledger.tables import chains, erasures, seals, usage_records
from pricing.usage import UsageRecord

SEAL_ROWS = 1_000
SEAL_MS = 60_000
SEALS_A_TURN = 10
"""A book that was never sealed is sealed in many turns, so that nothing else waits for it."""

HEARD_MOST = 20_000
"""The most leaves held in memory until their rows are sealed; others are computed from rows that are read again."""

log = logging.getLogger(__name__)
book = usage_records.c


class RowMissing(Exception):
    """A row that the next seal should cover is not in the book."""


class Sealer:
    """Makes seals. Any number of processes may run this: of two that seal at once, the second keeps the first's seal.

    Raises:
        MeteringUnavailable: the ledger is unavailable, from ``turn``.
    """

    def __init__(
        self, database: Database, now_ms: Callable[[], int], *, chain: str = MAIN, rows: int = SEAL_ROWS
    ) -> None:
        self._database = database
        self._now_ms = now_ms
        self._chain = chain
        self._rows = rows
        self._heard: dict[int, bytes] = {}
        self.has_waiting = True
        """Whether the last turn found rows without a seal."""

    def hear(self, records: Sequence[UsageRecord]) -> None:
        """Remember the leaves of committed records, so that the records need not be read again."""
        if len(self._heard) + len(records) <= HEARD_MOST:
            self._heard.update((record["seq"], leaf_of(record)) for record in records if record["chain"] == self._chain)

    def turn(self, *, all_of_it: bool = False) -> int:
        """Make the seals that are due, up to a bound; return how many were made.

        With ``all_of_it``, rows need not wait a minute.

        Raises:
            RowMissing: the book lacks a row; the seals made before it stay.
        """
        for made in range(SEALS_A_TURN):
            if (place := self._due(all_of_it)) is None:
                return made
            before, upto = place
            first = before.last_seq + 1 if before else 1
            with self._database.read() as connection:
                leaves = self._leaves(connection, first, upto)
            seal = following(before, leaves, self._now_ms(), self._chain)
            with self._database.write() as connection:
                _keep(connection, seal, leaves)
            for seq in range(first, upto + 1):
                self._heard.pop(seq, None)
            log.info("Seal %d of chain %s, rows %d to %d: %s", seal.seq, seal.chain, first, upto, seal.hash)
        return SEALS_A_TURN

    def _due(self, all_of_it: bool) -> tuple[Seal | None, int] | None:
        """Return the last seal and the last row of the next seal, or None where nothing is due."""
        head = select(chains.c.seq).where(chains.c.chain == self._chain)
        with self._database.read() as connection:
            head_seq = connection.execute(head).scalar_one_or_none() or 0
            last = last_seal(connection, self._chain)
        upto, since = (last.last_seq, last.time) if last else (0, 0)
        waiting = head_seq - upto
        self.has_waiting = waiting > 0
        if len(self._heard) > waiting:  # another process sealed some of these rows
            self._heard = {seq: leaf for seq, leaf in self._heard.items() if seq > upto}
        waited = all_of_it or abs(self._now_ms() - since) >= SEAL_MS
        if waiting >= self._rows or (waiting > 0 and waited):
            return last, upto + min(waiting, self._rows)
        return None

    def _leaves(self, connection: Connection, first: int, last: int) -> list[bytes]:
        leaves = {seq: leaf for seq in range(first, last + 1) if (leaf := self._heard.get(seq)) is not None}
        if len(leaves) <= last - first:
            leaves = leaves_of_rows(connection, self._chain, first, last) | leaves
        for seq in range(first, last + 1):
            if seq not in leaves:
                raise RowMissing(f"Row {seq} of chain {self._chain} is missing: see `tokencap ledger verify`.")
        return [leaves[seq] for seq in range(first, last + 1)]


def leaves_of_rows(connection: Connection, chain: str, first: int, last: int) -> dict[int, bytes]:
    """Return the leaves of some rows by number; for an erased row the leaf that it had, if that is stored."""
    within = (book.chain == chain, book.seq >= first, book.seq <= last)
    leaves = {
        row.seq: leaf_of(record_of(row))
        for row in connection.execute(select(*COLUMNS).where(*within).order_by(book.seq))
    }
    return leaves | erased_leaves(connection, chain, first, last)


def erased_leaves(connection: Connection, chain: str, first: int, last: int) -> dict[int, bytes]:
    """Return the leaves that erased rows had, by number."""
    within = (erasures.c.chain == chain, erasures.c.seq >= first, erasures.c.seq <= last, erasures.c.leaf.is_not(None))
    rows = connection.execute(select(erasures.c.seq, erasures.c.leaf).where(*within))
    return {row.seq: bytes.fromhex(row.leaf) for row in rows}


def _keep(connection: Connection, seal: Seal, leaves: Sequence[bytes]) -> None:
    """Store a seal unless another process has stored a seal in its place."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    fields = {name: getattr(seal, name) for name in Seal.__slots__}
    connection.execute(dialect.insert(seals).values(**fields, leaves=b"".join(leaves)).on_conflict_do_nothing())
