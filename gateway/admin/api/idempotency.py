"""Makes a repeated POST change nothing: the first answer is stored under its Idempotency-Key and sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from gateway.catalog import kept_replies
from gateway.catalog.kept_replies import digest
from gateway.ledger.database import Database

Answer = TypeVar("Answer", bound=BaseModel)

Keep = Callable[[Connection, BaseModel], None]
"""Stores an answer, without any secret, in the transaction of the change that it reports."""


@dataclass(frozen=True, slots=True)
class Posted:
    """The caller of a change, and the facts that identify a repetition of the same request."""

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
            description="Repeating a request with the same key changes nothing and returns the first answer again, "
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
    """The answers that are stored under idempotency keys."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    def once(self, posted: Posted, body: BaseModel, answer: type[Answer], change: Callable[[Keep], Answer]) -> Answer:
        """Carry out ``change``, or return the stored answer to the same request.

        Raises:
            Invalid: the key was used with another body before.
            Conflict: the same request is still being carried out.
        """
        if posted.idempotency_key is None:
            return change(_keep_nothing)
        claim = kept_replies.Claim(
            key=digest(f"{posted.route}\n{posted.idempotency_key}"),
            request=digest(body.model_dump_json()),
            time=self._now_ms(),
        )
        stored = claim.take(self._database)
        if stored is not None:
            posted.response.headers["Idempotency-Replayed"] = "true"
            return answer.model_validate_json(stored)
        try:
            return change(lambda connection, reply: claim.keep(connection, reply.model_dump_json()))
        finally:
            claim.release(self._database)


def _keep_nothing(_connection: Connection, _answer: BaseModel) -> None:
    """Store nothing: the request has no key."""
