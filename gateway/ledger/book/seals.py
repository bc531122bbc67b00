"""Seals: the fields of a seal, the order of seals, and the queries for the seals of the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select

from gateway.errors import BadRequest
from gateway.ledger.book.chain import GENESIS, MAIN, canonical
from gateway.ledger.book.merkle import HASH_BYTES, root_of
from gateway.ledger.cursors import NoCursor, cursor_of, position_of
from gateway.ledger.database import Database
from gateway.ledger.rows import AnyRow
from gateway.ledger.tables import seals

AT_ONCE = 20
"""Seals that are read with their leaves at a time: 640 kB of leaves."""

of = seals.c
SHOWN = (of.chain, of.seq, of.time, of.first_seq, of.last_seq, of.root, of.prev, of.hash)


class NotASeal(ValueError):
    """The object lacks a field of a seal, or its hash is not the hash of its content."""


@dataclass(frozen=True, slots=True)
class Seal:
    """A seal: the root over the rows of a chain from ``first_seq`` to ``last_seq``, and the previous seal's hash."""

    chain: str
    seq: int
    time: int
    """When the seal was made, ms since 1970."""
    first_seq: int
    last_seq: int
    root: str
    prev: str
    hash: str

    @property
    def rows(self) -> int:
        return self.last_seq - self.first_seq + 1

    def to_json(self) -> dict[str, Any]:
        """Return the seal as it is published."""
        return {**_content(self), "hash": self.hash}

    @classmethod
    def from_json(cls, published: Any) -> Seal:
        """Return a seal that was published.

        Raises:
            NotASeal: the object is not a seal, or was changed since.
        """
        if not isinstance(published, Mapping):
            raise NotASeal
        kinds = {"chain": str, "root": str, "prev": str, "hash": str, **dict.fromkeys(("seq", "time"), int)}
        kinds |= dict.fromkeys(("first_seq", "last_seq"), int)
        if any(type(published.get(name)) is not kind for name, kind in kinds.items()):
            raise NotASeal
        seal = cls(**{name: published[name] for name in kinds})
        if seal.rows != published.get("rows") or seal.hash != digest_of(seal):
            raise NotASeal
        return seal


@dataclass(frozen=True, slots=True)
class Page:
    """Some seals, newest first, and where the next page begins; None after the first seal."""

    seals: list[Seal]
    next_cursor: str | None


def digest_of(seal: Seal) -> str:
    """Return the hash that a seal must carry: SHA-256 of its canonical JSON without ``hash``."""
    return hashlib.sha256(canonical(_content(seal))).hexdigest()


def following(before: Seal | None, leaves: Sequence[bytes], time: int, chain: str = MAIN) -> Seal:
    """Return the seal over the rows that follow the rows of ``before``, from their leaves."""
    first = before.last_seq + 1 if before else 1
    seal = Seal(
        chain=chain,
        seq=before.seq + 1 if before else 1,
        time=time,
        first_seq=first,
        last_seq=first + len(leaves) - 1,
        root=root_of(leaves).hex(),
        prev=before.hash if before else GENESIS,
        hash="",
    )
    return Seal(**{**_fields(seal), "hash": digest_of(seal)})


def last_seal(connection: Connection, chain: str = MAIN) -> Seal | None:
    """Return the newest seal of a chain, None where it has no seal yet."""
    row = connection.execute(_of_chain(chain).order_by(of.seq.desc()).limit(1)).one_or_none()
    return None if row is None else Seal(*row)


def seal_covering(connection: Connection, seq: int, chain: str = MAIN) -> Seal | None:
    """Return the seal that covers a row of a chain, None where no seal covers it yet."""
    query = _of_chain(chain).where(of.last_seq >= seq).order_by(of.last_seq).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None or row.first_seq > seq else Seal(*row)


def leaves_under(connection: Connection, seal: Seal) -> list[bytes]:
    """Return the leaves that are stored with a seal, in the order of its rows."""
    query = select(of.leaves).where(of.chain == seal.chain, of.seq == seal.seq)
    return split(connection.execute(query).scalar_one())


def seals_page(database: Database, *, limit: int, cursor: str | None = None, chain: str = MAIN) -> Page:
    """Return a page of a chain's seals, newest first.

    Raises:
        BadRequest: ``cursor`` is not a cursor of this gateway.
    """
    query = _of_chain(chain).order_by(of.seq.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(of.seq < _before(cursor))
    with database.read() as connection:
        rows = connection.execute(query).all()
    found = [Seal(*row) for row in rows[:limit]]
    return Page(found, cursor_of(found[-1].seq) if len(rows) > limit else None)


def sealed_in_order(
    database: Database, chain: str = MAIN, at_once: int = AT_ONCE
) -> Iterator[tuple[Seal, list[bytes]]]:
    """Yield a chain's seals, oldest first, each with its leaves."""
    after = 0
    query = select(*SHOWN, of.leaves).where(of.chain == chain).order_by(of.seq).limit(at_once)
    while rows := _read(database, query.where(of.seq > after)):
        yield from ((Seal(*row[:-1]), split(row.leaves)) for row in rows)
        after = rows[-1].seq


def seals_in_order(database: Database, chain: str = MAIN, at_once: int = 1_000) -> Iterator[Seal]:
    """Yield a chain's seals, oldest first."""
    after = 0
    query = _of_chain(chain).order_by(of.seq).limit(at_once)
    while rows := _read(database, query.where(of.seq > after)):
        yield from (Seal(*row) for row in rows)
        after = rows[-1].seq


def split(leaves: bytes) -> list[bytes]:
    """Return the leaves of a concatenation."""
    return [leaves[start : start + HASH_BYTES] for start in range(0, len(leaves), HASH_BYTES)]


def _read(database: Database, query: Select[Any]) -> Sequence[AnyRow]:
    with database.read() as connection:
        return connection.execute(query).all()


def _of_chain(chain: str) -> Select[Any]:
    return select(*SHOWN).where(of.chain == chain)


def _before(cursor: str) -> int:
    try:
        [seq] = position_of(cursor, int)
    except NoCursor as error:
        raise BadRequest("This cursor is not one that a list gave out.", param="cursor") from error
    return int(seq)


def _fields(seal: Seal) -> dict[str, Any]:
    return {name: getattr(seal, name) for name in Seal.__slots__}


def _content(seal: Seal) -> dict[str, Any]:
    fields = ("seq", "time", "chain", "first_seq", "last_seq", "rows", "root", "prev")
    return {name: getattr(seal, name) for name in fields}
