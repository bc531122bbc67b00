"""Answers of the admin API that are stored under their Idempotency-Keys, as rows of the ledger.

A request claims its key, and the answer is stored in the transaction of the change that it reports, so that the change
is never committed without the answer. A claim whose owner died lapses; if the owner is alive after all, its transaction
finds that the claim was lost and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.catalog.problems import Conflict, Invalid
from gateway.errors import MeteringUnavailable
from gateway.ledger.database import Database
from gateway.ledger.rows import VALUES_MOST, batches
from gateway.ledger.tables import admin_replies

CLAIM_MS = 60_000
"""A claim this old has lapsed: no admin request works that long."""

RUNNING = 0
"""The status of a request that is still being carried out."""

CREATED = 201


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's claim on its key; ``time`` is its fence."""

    key: str
    request: str
    time: int

    def take(self, database: Database) -> str | None:
        """Return the stored answer, or claim the key and return None.

        Raises:
            Invalid: the key was used with another body before.
            Conflict: the same request is still being carried out.
        """
        while True:
            try:
                with database.write() as connection:
                    return self._take(connection)
            except IntegrityError:  # another request inserted the row of this key meanwhile: read that row
                continue

    def release(self, database: Database) -> None:
        """Free the key unless an answer was stored. If the ledger is unavailable, the claim lapses after a minute."""
        with suppress(MeteringUnavailable), database.write() as connection:
            connection.execute(delete(admin_replies).where(*self._is_ours()))

    def _take(self, connection: Connection) -> str | None:
        table = admin_replies
        row = connection.execute(select(table).where(table.c.key == self.key).with_for_update()).one_or_none()
        if row is None:
            values = {"key": self.key, "request": self.request, "status": RUNNING, "body": "", "time": self.time}
            connection.execute(insert(table).values(**values))
            return None
        if row.request != self.request:
            raise Invalid(
                "This Idempotency-Key was used for another request; take a new one for a new request.",
                code="idempotency_key_reused",
            )
        if row.status != RUNNING:
            body: str = row.body
            return body
        if row.time > self.time - CLAIM_MS:
            raise Conflict(
                "The same request is still being carried out; ask again in a moment.",
                code="idempotency_in_progress",
                headers={"retry-after": "1"},
            )
        connection.execute(update(table).where(table.c.key == self.key).values(time=self.time))
        return None

    def keep(self, connection: Connection, answer: str) -> None:
        """Store an answer, as JSON without any secret, in the transaction of the change that it reports.

        Raises:
            Conflict: the claim lapsed, and a repetition of the request was admitted.
        """
        values = {"status": CREATED, "body": answer}
        stored = connection.execute(update(admin_replies).where(*self._is_ours()).values(**values)).rowcount
        if not stored:
            raise Conflict(
                "This request took so long that a repetition of it was let in; nothing was changed by this one.",
                code="idempotency_in_progress",
            )

    def _is_ours(self) -> tuple[ColumnElement[bool], ...]:
        table = admin_replies
        return table.c.key == self.key, table.c.status == RUNNING, table.c.time == self.time


def ids_created(connection: Connection, route: str, names: Sequence[str]) -> dict[str, str]:
    """Return the ids that a route created under the sender's names, by name."""
    by_key, ids = {digest(f"{route}\nrow {name}"): name for name in names}, dict[str, str]()
    for batch in batches(by_key, VALUES_MOST):
        query = select(admin_replies.c.key, admin_replies.c.body).where(admin_replies.c.key.in_(batch))
        ids |= {by_key[key]: json.loads(body)["id"] for key, body in connection.execute(query)}
    return ids


def store_created(connection: Connection, route: str, ids_by_name: Mapping[str, str], now_ms: int) -> None:
    """Store the ids that a route has created, under the sender's names."""
    rows = [
        {"key": key, "request": key, "status": CREATED, "body": json.dumps({"id": made_id}), "time": now_ms}
        for name, made_id in ids_by_name.items()
        for key in (digest(f"{route}\nrow {name}"),)
    ]
    if not rows:
        return
    try:
        connection.execute(insert(admin_replies), rows)
    except IntegrityError as error:
        raise Conflict("Another request makes customers of the same rows; send this one again.") from error


def erase(connection: Connection, customer_id: str, blanks: dict[str, str | None]) -> None:
    """Replace the fields named in ``blanks`` in the stored answers that created a customer, alone or with others."""
    table = admin_replies
    rows = connection.execute(select(table.c.key, table.c.body).where(table.c.body.contains(customer_id))).all()
    for key, body in rows:
        answer = json.loads(body)
        customers = [answer, *(item["customer"] for item in answer.get("data", ()) if "customer" in item)]
        for customer in customers:
            if customer.get("id") == customer_id:
                customer.update(blanks)
                connection.execute(update(table).where(table.c.key == key).values(body=json.dumps(answer)))


def erase_key(connection: Connection, key_id: str) -> None:
    """Remove a key's name from the stored answers that created it, alone or with others."""
    table = admin_replies
    for reply, body in connection.execute(select(table.c.key, table.c.body).where(table.c.body.contains(key_id))).all():
        answer = json.loads(body)
        keys = [answer, *(key for item in answer.get("data", ()) for key in item.get("keys", ()))]
        for key in keys:
            if key.get("key_id") == key_id and "name" in key:
                key["name"] = None
        connection.execute(update(table).where(table.c.key == reply).values(body=json.dumps(answer)))


def digest(text: str) -> str:
    """Return the digest under which a key or a body is stored."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
