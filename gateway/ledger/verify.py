"""Recounts the book: walks each chain from its first row to its head and names the first row that is not as written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, union

from gateway.ledger.chain import MAIN, BadRow, Head, verify
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS, record_of
from gateway.ledger.tables import chains, erasures, usage_records
from pricing.usage import UsageRecord

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Recount:
    """What a recount of one chain found: how many rows hold, and the first one that does not."""

    chain: str
    rows: int
    bad: BadRow | None
    erased: int = 0
    """Rows among those that hold whose customer was erased: their place and what is left of them was checked."""

    @property
    def is_sound(self) -> bool:
        return self.bad is None


def recount_all(database: Database) -> list[Recount]:
    """Recount every chain that has a head or a row, so that no row is outside the count."""
    named = union(select(chains.c.chain), select(usage_records.c.chain)).subquery()
    with database.read() as connection:
        names = connection.execute(select(named.c.chain).order_by(named.c.chain)).scalars().all()
    return [recount(database, name) for name in names]


def recount(database: Database, chain: str = MAIN) -> Recount:
    """Recount one chain up to where its head is now; rows appended meanwhile are of the next recount.

    Finds an edited, deleted, inserted or moved row, a tail cut off behind the head's back, rows put past it, and an
    edited head. Whoever rewrites every later row and the head as well is found out only by a copy of a hash that is
    kept elsewhere.
    """
    head, last_seq = _ends(database, chain)
    erased: dict[int, str] = {}
    verdict = verify(_rows(database, chain, head.seq, erased), erased=erased.get)
    bad = verdict.bad or _fault_at_the_end(verdict.head, head, last_seq)
    return Recount(chain, verdict.head.seq, bad, verdict.erased)


def _ends(database: Database, chain: str) -> tuple[Head, int]:
    """Return the head and the number of the last row, both of one moment: in one statement."""
    ends = select(
        select(chains.c.seq).where(chains.c.chain == chain).scalar_subquery(),
        select(chains.c.hash).where(chains.c.chain == chain).scalar_subquery(),
        select(func.max(usage_records.c.seq)).where(usage_records.c.chain == chain).scalar_subquery(),
    )
    with database.read() as connection:
        seq, digest, last_seq = connection.execute(ends).one()
    return (Head() if seq is None else Head(seq, digest)), last_seq or 0


def _rows(database: Database, chain: str, last: int, erased: dict[int, str]) -> Iterator[UsageRecord]:
    """Yield the rows of a chain in its order, up to number ``last``, whatever the first one's number is.

    ``erased`` is given the digests of those of the page whose words were taken out.
    """
    on_chain = select(*COLUMNS).where(usage_records.c.chain == chain, usage_records.c.seq <= last)
    page = on_chain.order_by(usage_records.c.seq).limit(PAGE)
    query = page
    while True:
        with database.read() as connection:
            records = [record_of(row) for row in connection.execute(query)]
            erased.clear()
            if records:
                erased.update(_digests(connection, chain, records[0]["seq"], records[-1]["seq"]))
        if not records:
            return
        yield from records
        query = page.where(usage_records.c.seq > records[-1]["seq"])


def _digests(connection: Connection, chain: str, first: int, last: int) -> dict[int, str]:
    within = (erasures.c.chain == chain, erasures.c.seq >= first, erasures.c.seq <= last)
    return {row.seq: row.digest for row in connection.execute(select(erasures.c.seq, erasures.c.digest).where(*within))}


def _fault_at_the_end(found: Head, head: Head, last_seq: int) -> BadRow | None:
    if found.seq < head.seq:
        return BadRow(found.seq + 1, None, f"it is missing, and so is every row up to the head's {head.seq}")
    if found.hash != head.hash:
        return BadRow(head.seq, None, "the chain's head names another hash for it")
    if last_seq > head.seq:
        return BadRow(head.seq + 1, None, f"it is past the chain's head, which is row {head.seq}")
    return None
