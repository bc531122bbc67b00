"""Makes a repeated POST change nothing: the first one's answer is kept under its Idempotency-Key and given again.

A request claims its key, and the answer is kept in the transaction of the change itself: there is no moment at which
the change is there and the answer is not. A claim whose owner died lapses; should the owner be alive after all, its
transaction finds the claim gone and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.catalog.problems import Conflict, Invalid
from gateway.errors import MeteringUnavailable
from gateway.ledger.database import Database
from gateway.ledger.rows import VALUES_MOST, batches
from gateway.ledger.tables import admin_replies

CLAIM_MS = 60_000
"""A claim this old is nobody's: no admin request works that long."""

RUNNING = 0
"""Stands for the status of a request that is still being carried out."""

CREATED = 201

Answer = TypeVar("Answer", bound=BaseModel)

Keep = Callable[[Connection, BaseModel], None]
"""Keeps an answer, without any secret, in the transaction of the change that it reports."""


@dataclass(frozen=True, slots=True)
class Posted:
    """Who asks for a change, and what marks a repetition of the same request."""

    actor: str
    route: str
    idempotency_key: str | None
    response: Response


def _posted(
    request: Request,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            description="Repeating a request with the same key changes nothing and gives the first answer again, "
            "marked `Idempotency-Replayed: true`. A new API key's text is not shown again.",
        ),
    ] = None,
) -> Posted:
    return Posted(request.state.actor, request.url.path, idempotency_key, response)


def _actor(request: Request) -> str:
    actor: str = request.state.actor
    return actor


Post = Annotated[Posted, Depends(_posted)]
Actor = Annotated[str, Depends(_actor)]


class Replies:
    """The kept answers."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    def once(self, posted: Posted, body: BaseModel, answer: type[Answer], change: Callable[[Keep], Answer]) -> Answer:
        """Carry out ``change``, or give the answer that the same request had before.

        Raises:
            Invalid: the key came with another body before.
            Conflict: the same request is still being carried out.
        """
        if posted.idempotency_key is None:
            return change(_keep_nothing)
        claim = _Claim(
            key=_digest(f"{posted.route}\n{posted.idempotency_key}"),
            request=_digest(body.model_dump_json()),
            time=self._now_ms(),
        )
        kept = self._claim(claim)
        if kept is not None:
            posted.response.headers["Idempotency-Replayed"] = "true"
            return answer.model_validate_json(kept)
        try:
            return change(claim.keep)
        finally:
            self._release(claim)

    def _claim(self, claim: _Claim) -> str | None:
        """Return the answer kept before, or None: the claim is ours."""
        while True:
            try:
                with self._database.write() as connection:
                    return claim.settle(connection)
            except IntegrityError:  # another request wrote the same key's first row meanwhile: look at it
                continue

    def _release(self, claim: _Claim) -> None:
        """Free the key unless an answer was kept. Where the ledger is not to be had the claim lapses by itself."""
        with suppress(MeteringUnavailable), self._database.write() as connection:
            connection.execute(delete(admin_replies).where(*claim.is_ours()))


@dataclass(frozen=True, slots=True)
class _Claim:
    """One request's hold on its key; ``time`` is its fence."""

    key: str
    request: str
    time: int

    def settle(self, connection: Connection) -> str | None:
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

    def keep(self, connection: Connection, answer: BaseModel) -> None:
        values = {"status": CREATED, "body": answer.model_dump_json()}
        kept = connection.execute(update(admin_replies).where(*self.is_ours()).values(**values)).rowcount
        if not kept:
            raise Conflict(
                "This request took so long that a repetition of it was let in; nothing was changed by this one.",
                code="idempotency_in_progress",
            )

    def is_ours(self) -> tuple[ColumnElement[bool], ...]:
        table = admin_replies
        return table.c.key == self.key, table.c.status == RUNNING, table.c.time == self.time


def things_made_of(connection: Connection, route: str, names: Sequence[str]) -> dict[str, str]:
    """Return the ids of what a route made of things that the sender has names for, by these names."""
    by_key, found = {_digest(f"{route}\nrow {name}"): name for name in names}, dict[str, str]()
    for some in batches(by_key, VALUES_MOST):
        query = select(admin_replies.c.key, admin_replies.c.body).where(admin_replies.c.key.in_(some))
        found |= {by_key[key]: json.loads(body)["id"] for key, body in connection.execute(query)}
    return found


def remember_made(connection: Connection, route: str, made: Mapping[str, str], now_ms: int) -> None:
    """Keep the ids of what a route has made of things that the sender has names for."""
    rows = [
        {"key": key, "request": key, "status": CREATED, "body": json.dumps({"id": made_id}), "time": now_ms}
        for name, made_id in made.items()
        for key in (_digest(f"{route}\nrow {name}"),)
    ]
    if not rows:
        return
    try:
        connection.execute(insert(admin_replies), rows)
    except IntegrityError as error:
        raise Conflict("Another request makes customers of the same rows; send this one again.") from error


def erase(connection: Connection, customer_id: str, blanks: dict[str, str | None]) -> None:
    """Put ``blanks`` in the place of those fields in the kept answer that made a customer, alone or with others."""
    table = admin_replies
    rows = connection.execute(select(table.c.key, table.c.body).where(table.c.body.contains(customer_id))).all()
    for key, body in rows:
        answer = json.loads(body)
        made = [answer, *(one["customer"] for one in answer.get("data", ()) if "customer" in one)]
        for customer in made:
            if customer.get("id") == customer_id:
                customer.update(blanks)
                connection.execute(update(table).where(table.c.key == key).values(body=json.dumps(answer)))


def erase_key(connection: Connection, key_id: str) -> None:
    """Take a key's name from the kept answers that made it, alone or with others."""
    table = admin_replies
    for reply, body in connection.execute(select(table.c.key, table.c.body).where(table.c.body.contains(key_id))).all():
        answer = json.loads(body)
        made = [answer, *(key for one in answer.get("data", ()) for key in one.get("keys", ()))]
        for key in made:
            if key.get("key_id") == key_id and "name" in key:
                key["name"] = None
        connection.execute(update(table).where(table.c.key == reply).values(body=json.dumps(answer)))


def _keep_nothing(_connection: Connection, _answer: BaseModel) -> None:
    """Without a key there is nothing to keep."""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
