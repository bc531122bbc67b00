"""API keys as rows of the ledger, hashed: of a key's text only the SHA-256 digest and the beginning are stored."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Column, Connection, Row, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from gateway.catalog.problems import AlreadyExists, NotFound
from gateway.holds.store import redis_keys
from gateway.ledger.rows import VALUES_MOST, batches
from gateway.ledger.tables import api_keys

SHOWN = 12
"""How many characters of a key stay readable, so that people can tell their keys apart."""

SECRET_BYTES = 32

OWN = "tc-"
"""The beginning of this gateway's keys, which name their bucket; the bucket of a key created elsewhere is looked up."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One API key, without its digest."""

    key_id: str
    customer: str
    prefix: str
    name: str | None
    created: int
    expires: int | None
    revoked: int | None = None


COLUMNS = tuple(api_keys.c[each.name] for each in fields(KeyRow))


def row_of(row: Row[tuple[Any, ...]]) -> KeyRow:
    """Return the key in a row that was selected by COLUMNS."""
    return KeyRow(**row._mapping)


def new_text(customer_id: str, random_bytes: Callable[[int], bytes]) -> str:
    """Return the text of a new key, which names its customer's bucket."""
    secret = base64.urlsafe_b64encode(random_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    return f"{OWN}{redis_keys.bucket_of(customer_id)}-{secret}"


def digest_of(text: str) -> str:
    """Return the digest under which a key's text is stored."""
    return hashlib.sha256(text.encode()).hexdigest()


def add(connection: Connection, row: KeyRow, digest: str) -> None:
    """Write a new key.

    Raises:
        AlreadyExists: there is a key with this digest.
    """
    add_all(connection, [(row, digest)])


def add_all(connection: Connection, rows: Sequence[tuple[KeyRow, str]]) -> None:
    """Write new keys with their digests.

    Raises:
        AlreadyExists: there is a key with one of the digests.
    """
    if not rows:
        return
    values = [
        {**{column.name: getattr(row, column.name) for column in fields(row)}, "digest": digest, "projected": False}
        for row, digest in rows
    ]
    try:
        connection.execute(insert(api_keys), values)
    except IntegrityError as error:
        raise AlreadyExists("There is an API key with this SHA-256 already.") from error


def of_digests(connection: Connection, digests: Sequence[str]) -> dict[str, KeyRow]:
    """Return the existing keys with these digests."""
    return {digest: row for row, digest in _some(connection, api_keys.c.digest, digests)}


def of_customers(connection: Connection, ids: Sequence[str]) -> list[KeyRow]:
    """Return every key of these customers, in the order they were created."""
    return sorted((row for row, _ in _some(connection, api_keys.c.customer, ids)), key=lambda row: row.created)


def _some(connection: Connection, column: Column[Any], values: Sequence[str]) -> Iterator[tuple[KeyRow, str]]:
    for batch in batches(values, VALUES_MOST):
        query = select(*COLUMNS, api_keys.c.digest).where(column.in_(batch))
        for row in connection.execute(query.order_by(api_keys.c.created, api_keys.c.key_id)):
            values_by_column = dict(row._mapping)
            digest = values_by_column.pop("digest")
            yield KeyRow(**values_by_column), digest


def find(connection: Connection, key_id: str, *, locked: bool = False) -> KeyRow:
    """Return a key; with ``locked``, every other change of the key waits until the transaction ends.

    Raises:
        NotFound: no key has this id.
    """
    query = select(*COLUMNS).where(api_keys.c.key_id == key_id)
    row = None
    if key_id.isprintable():  # PostgreSQL refuses to look for some other characters
        row = connection.execute(query.with_for_update() if locked else query).one_or_none()
    if row is None:
        raise NotFound(f"There is no API key {key_id[:64]!r}.")
    return row_of(row)


def store_end(connection: Connection, row: KeyRow) -> None:
    """Write the times at which a key, which was ``locked`` when found, expires and was revoked."""
    values = {"expires": row.expires, "revoked": row.revoked, "projected": False}
    connection.execute(update(api_keys).where(api_keys.c.key_id == row.key_id).values(**values))


def revoke_all(connection: Connection, customer_id: str, now_ms: int) -> list[str]:
    """Revoke every key of a customer; return the ids of the keys that were not revoked before."""
    living = (api_keys.c.customer == customer_id, api_keys.c.revoked.is_(None))
    revoked = update(api_keys).where(*living).values(revoked=now_ms, projected=False).returning(api_keys.c.key_id)
    return sorted(connection.execute(revoked).scalars())


def forget_names(connection: Connection, customer_id: str) -> list[str]:
    """Remove the names of all of a customer's keys; return the keys' ids."""
    unnamed = update(api_keys).where(api_keys.c.customer == customer_id).values(name=None).returning(api_keys.c.key_id)
    return sorted(connection.execute(unnamed).scalars())


def page(connection: Connection, customer_id: str, *, limit: int, after: tuple[int, str] | None = None) -> list[KeyRow]:
    """Return a customer's keys in the order they were created."""
    query = select(*COLUMNS).where(api_keys.c.customer == customer_id)
    if after is not None:
        query = query.where(tuple_(api_keys.c.created, api_keys.c.key_id) > after)
    rows = connection.execute(query.order_by(api_keys.c.created, api_keys.c.key_id).limit(limit))
    return [row_of(row) for row in rows]
