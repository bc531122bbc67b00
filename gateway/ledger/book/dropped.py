"""The rows of a chain that retention has dropped, with a bit for each row under a seal; no other row may be missing."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.billing_tables import dropped_months, dropped_rows
from gateway.ledger.book.seals import Seal, seal_covering
from gateway.ledger.database import Database
from gateway.ledger.rows import VALUES_MOST, batches
from gateway.ledger.tables import seals

of, months = dropped_rows.c, dropped_months.c


@dataclass(frozen=True, slots=True)
class Dropped:
    """The dropped rows of one chain, in the order of its seals; bit n of a seal's ``bits`` is for row ``first`` + n."""

    firsts: tuple[int, ...]
    lasts: tuple[int, ...]
    bits: tuple[int, ...]

    def has_all(self, first: int, last: int) -> bool:
        """Return whether all rows from one number to another were dropped."""
        while first <= last:
            place = bisect_right(self.firsts, first) - 1
            if place < 0 or self.lasts[place] < first:
                return False
            upto = min(last, self.lasts[place])
            mask = (1 << (upto - first + 1)) - 1
            if self.bits[place] >> (first - self.firsts[place]) & mask != mask:
                return False
            first = upto + 1
        return True


def dropped_in(database: Database, chain: str) -> Dropped:
    """Return the dropped rows of a chain. No row under the newest seal, or without a seal, is ever dropped."""
    newest = select(func.max(seals.c.seq)).where(seals.c.chain == chain).scalar_subquery()
    query = (
        select(seals.c.first_seq, seals.c.last_seq, of.rows)
        .join(seals, (seals.c.chain == of.chain) & (seals.c.seq == of.seal))
        .where(of.chain == chain, of.seal < newest)
        .order_by(seals.c.first_seq)
    )
    with database.read() as connection:
        found = connection.execute(query).all()
    return Dropped(
        tuple(row.first_seq for row in found),
        tuple(row.last_seq for row in found),
        tuple(int.from_bytes(row.rows, "little") for row in found),
    )


def dropped_until(connection: Connection, customers: Iterable[str] | None = None) -> dict[str, int]:
    """Return the end, ms, of the last dropped month of each customer that has any; of these ``customers``, if given."""
    query = select(months.customer, func.max(months.end)).group_by(months.customer)
    if customers is None:
        return {row[0]: row[1] for row in connection.execute(query)}
    if connection.execute(select(months.customer).limit(1)).first() is None:
        return {}
    found: dict[str, int] = {}
    for chunk in batches(sorted(customers), VALUES_MOST):
        found.update((row[0], row[1]) for row in connection.execute(query.where(months.customer.in_(chunk))))
    return found


def by_seal(connection: Connection, seqs: Iterable[int], chain: str) -> dict[Seal, list[int]]:
    """Return rows, grouped by the seals that cover them; rows that no seal covers are left out."""
    found: dict[Seal, list[int]] = defaultdict(list)
    seal: Seal | None = None
    for seq in sorted(seqs):
        if seal is None or seq > seal.last_seq:
            seal = seal_covering(connection, seq, chain)
        if seal is not None:
            found[seal].append(seq)
    return found


def mark_dropped(connection: Connection, rows: Mapping[Seal, Iterable[int]]) -> None:
    """Mark rows as dropped, in the transaction that deletes them; marking twice changes nothing."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    for seal, seqs in rows.items():
        of_seal = (of.chain == seal.chain, of.seal == seal.seq)
        before = connection.execute(select(of.rows).where(*of_seal)).scalar_one_or_none()
        bits = int.from_bytes(before or b"", "little")
        for seq in seqs:
            bits |= 1 << (seq - seal.first_seq)
        content = bits.to_bytes((seal.rows + 7) // 8, "little")
        statement = dialect.insert(dropped_rows).values(chain=seal.chain, seal=seal.seq, rows=content)
        same = {"index_elements": ["chain", "seal"], "set_": {"rows": content}}
        connection.execute(statement.on_conflict_do_update(**same))
