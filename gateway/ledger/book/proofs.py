"""Proofs that a record is in the book at its place, under a seal; anyone can check a proof alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from gateway.errors import HouseError, NotSealedYet
from gateway.ledger.book.merkle import climbed, leaf_of, path_to
from gateway.ledger.book.seals import leaves_under, seal_covering
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS, record_of
from gateway.ledger.tables import erasures, usage_records


def proof_of(database: Database, record_id: str, customer: str | None = None) -> dict[str, Any] | None:
    """Return the proof of a record, only of ``customer`` where it is not None; None where there is no such record.

    The record, its seal and the leaves under the seal are read: the same amount however long the book is. The proof of
    an erased record has ``erased``: its leaf is the hash of the record with its words, which nobody can compute again,
    so the proof is of the place and not of the words.

    Raises:
        NotSealedYet: the next seal will cover the record.
        HouseError: the record differs from its seal.
    """
    query = select(*COLUMNS).where(usage_records.c.id == record_id)
    if customer is not None:
        query = query.where(usage_records.c.customer == customer)
    with database.read() as connection:
        row = connection.execute(query).one_or_none()
        if row is None:
            return None
        record = record_of(row)
        chain, seq = record["chain"], record["seq"]
        seal = seal_covering(connection, seq, chain)
        if seal is None:
            raise NotSealedYet
        leaves = leaves_under(connection, seal)
        this = (erasures.c.chain == chain, erasures.c.seq == seq)
        is_erased = connection.execute(select(erasures.c.seq).where(*this)).first() is not None
    place = seq - seal.first_seq
    path = path_to(leaves, place)
    if (not is_erased and leaf_of(record) != leaves[place]) or climbed(leaves[place], path).hex() != seal.root:
        raise HouseError("This record is not the one that was sealed: the operator has to look at the books.")
    return {
        "record": record,
        "leaf": leaves[place].hex(),
        "path": [{"side": step.side, "hash": step.hash.hex()} for step in path],
        "seal": seal.to_json(),
        **({"erased": True} if is_erased else {}),
    }
