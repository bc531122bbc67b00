"""Recounts the book: walks each chain from its first row to its head and names the first row that was changed.

Each row is checked against the row before it and against the seal that covers it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select, union

from gateway.ledger.book.chain import MAIN, BadRow, Head, verify
from gateway.ledger.book.dropped import dropped_in
from gateway.ledger.book.seal_check import SealCheck
from gateway.ledger.book.seals import Seal, sealed_in_order
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS_AS_SPELLED, records_as_spelled
from gateway.ledger.tables import chains, erasures, seals, usage_records
from pricing.usage import UsageRecord

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of recounting one chain: how many rows are sound, and the first row that is not."""

    chain: str
    rows: int
    bad: BadRow | None
    erased: int = 0
    """How many of the sound rows belong to erased customers: their place and their remaining fields were checked."""
    dropped: int = 0
    """How many of the sound rows retention has dropped: their seals have their leaves."""

    seals: int = 0
    """How many of the ledger's seals are sound."""
    last: Seal | None = None
    """The newest sound seal."""
    unseen: tuple[str, ...] = ()
    """Hashes of published seals that no seal of the ledger has."""

    @property
    def is_sound(self) -> bool:
        return self.bad is None and not self.unseen


@dataclass(frozen=True, slots=True)
class Published:
    """Seals, or their hashes alone, stored out of reach of anyone who rewrites the ledger."""

    seals: Collection[Seal] = ()
    hashes: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Erased:
    """The erased rows of a page, by number: digests of their remaining fields, and the leaves they had."""

    digests: dict[int, str] = field(default_factory=dict)
    leaves: dict[int, bytes | None] = field(default_factory=dict)


def verify_all(database: Database, published: Published = Published()) -> list[Verification]:
    """Recount every chain that has a head, a row or a seal, so that no chain escapes the recount."""
    named = union(select(chains.c.chain), select(usage_records.c.chain), select(seals.c.chain)).subquery()
    with database.read() as connection:
        names = connection.execute(select(named.c.chain).order_by(named.c.chain)).scalars().all()
    if published.seals or published.hashes:
        names = sorted({*names, MAIN, *(seal.chain for seal in published.seals)})
    return [verify_chain(database, name, published) for name in names]


def verify_chain(database: Database, chain: str = MAIN, published: Published = Published()) -> Verification:
    """Recount one chain up to its present head; rows appended meanwhile belong to the next recount.

    Finds an edited, deleted, inserted or moved row, a tail that was cut off without changing the head, rows past the
    head, an edited head, and a row, a seal or a tail that was rewritten under a seal. The ``published`` seals reveal a
    rewrite of rows, head and seals together.
    """
    head, last_seq = _ends(database, chain)
    erased = Erased()
    theirs = [seal for seal in published.seals if seal.chain == chain]
    hashes = published.hashes if chain == MAIN else ()
    check = SealCheck(sealed_in_order(database, chain), erased.leaves, theirs, hashes)
    gone = dropped_in(database, chain)
    rows = _rows(database, chain, head.seq, erased)
    verdict = verify(rows, erased=erased.digests.get, also=check.fault, dropped=gone.has_all)
    bad = verdict.bad or _fault_at_the_end(verdict.head, head, last_seq) or check.fault_at_the_end(head.seq)
    unseen = () if bad else tuple(sorted(check.unseen))
    return Verification(chain, verdict.head.seq, bad, verdict.erased, verdict.dropped, check.count, check.last, unseen)


def _ends(database: Database, chain: str) -> tuple[Head, int]:
    """Return the head and the number of the last row, both at one moment: read in one statement."""
    ends = select(
        select(chains.c.seq).where(chains.c.chain == chain).scalar_subquery(),
        select(chains.c.hash).where(chains.c.chain == chain).scalar_subquery(),
        select(func.max(usage_records.c.seq)).where(usage_records.c.chain == chain).scalar_subquery(),
    )
    with database.read() as connection:
        seq, digest, last_seq = connection.execute(ends).one()
    return (Head() if seq is None else Head(seq, digest)), last_seq or 0


def _rows(database: Database, chain: str, last: int, erased: Erased) -> Iterator[UsageRecord]:
    """Yield the rows of a chain in its order, up to number ``last``, whatever the first number is.

    ``erased`` receives the digests and leaves of the erased rows of each page.
    """
    on_chain = select(*COLUMNS_AS_SPELLED).where(usage_records.c.chain == chain, usage_records.c.seq <= last)
    page = on_chain.order_by(usage_records.c.seq).limit(PAGE)
    query = page
    while True:
        with database.read() as connection:
            records = records_as_spelled(connection, query)
            if records:
                _look_up(connection, chain, records[0]["seq"], records[-1]["seq"], erased)
        if not records:
            return
        yield from records
        query = page.where(usage_records.c.seq > records[-1]["seq"])


def _look_up(connection: Connection, chain: str, first: int, last: int, erased: Erased) -> None:
    within = (erasures.c.chain == chain, erasures.c.seq >= first, erasures.c.seq <= last)
    rows = connection.execute(select(erasures.c.seq, erasures.c.digest, erasures.c.leaf).where(*within)).all()
    erased.digests.clear()
    erased.leaves.clear()
    erased.digests.update((row.seq, row.digest) for row in rows)
    erased.leaves.update((row.seq, bytes.fromhex(row.leaf) if row.leaf else None) for row in rows)


def _fault_at_the_end(found: Head, head: Head, last_seq: int) -> BadRow | None:
    if found.seq < head.seq:
        return BadRow(found.seq + 1, None, f"it is missing, and so is every row up to the head's {head.seq}")
    if found.hash != head.hash:
        return BadRow(head.seq, None, "the chain's head names another hash for it")
    if last_seq > head.seq:
        return BadRow(head.seq + 1, None, f"it is past the chain's head, which is row {head.seq}")
    return None
