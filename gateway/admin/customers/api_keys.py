"""The routes of API keys: create, list, revoke, rotate. A key's text is in one answer and nowhere else."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Actor, Keep, Post, Replies
from gateway.admin.api.inputs import GivenMoment, Input, Moment, OneLine
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, Page, position_of
from gateway.admin.api.problem_json import saved_only
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.customers.customers import refuse_deleted
from gateway.catalog import api_key_rows, audit_rows, customer_rows
from gateway.catalog.additions import Additions
from gateway.catalog.api_key_rows import KeyRow
from gateway.catalog.audit_rows import Audited
from gateway.catalog.problems import Conflict, Invalid
from gateway.catalog.projector import project_keys
from gateway.clock import written
from gateway.ledger.cursors import cursor_of

MAX_OVERLAP_S = 30 * 86_400


class NewKey(Input):
    """A key to be."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "production"}]})

    name: OneLine | None = Field(default=None, description="What it is for.", examples=["production"])
    expires: GivenMoment | None = Field(default=None, description="From then on it is refused; null is never.")


class Rotation(Input):
    """How a key is replaced."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: int = Field(
        default=0, ge=0, le=MAX_OVERLAP_S, description="How long the old key still works; with 0 it is revoked at once."
    )
    expires: GivenMoment | None = Field(
        default=None, description="When the new key expires. Left out, it lives as long again as the old one was to."
    )


class KeyShown(BaseModel):
    """An API key, without its text."""

    key_id: str = Field(examples=["key_0c41d7e2aa7b5f3c9e81d604"])
    customer: str = Field(examples=["cus_5bd0c1f2a47e9c3d10fa2b64"])
    name: str | None = Field(examples=["production"])
    prefix: str = Field(description="How its text begins.", examples=["tc-7f-Qm3xKd"])
    created: Moment
    expires: Moment | None
    revoked: Moment | None


class KeyMade(KeyShown):
    """A new API key, with its text, which is not shown again."""

    key: str | None = Field(
        description="What the customer sends as `Authorization: Bearer …`. Null where a repeated request made no key, "
        "and for one that was made elsewhere.",
        examples=["tc-7f-Qm3xKd…"],
    )
    replaces: str | None = Field(default=None, description="The key that it was rotated from.")


class KeysShown(Page[KeyShown]):
    """A customer's keys in the order they were created."""


def shown(row: KeyRow) -> KeyShown:
    return KeyShown(**_facts(row))


def _facts(row: KeyRow) -> dict[str, Any]:
    times = {name: getattr(row, name) for name in ("created", "expires", "revoked")}
    return asdict(row) | {name: None if ms is None else written(ms) for name, ms in times.items()}


class Keys:
    """Keys are let in by their digest, in Redis; the ledger says which those are."""

    def __init__(self, services: AdminServices, replies: Replies) -> None:
        self._services = services
        self._database = services.database
        self._replies = replies

    def add_to(self, routes: Routes) -> None:
        of_customer, one = "/customers/{customer_id}/keys", "/keys/{key_id}"
        routes.add("POST", of_customer, self.create, "Make an API key", 404, 409)
        routes.add("GET", of_customer, self.list, "List a customer's API keys", 404)
        routes.add("DELETE", one, self.revoke, "Revoke an API key", 404)
        routes.add("POST", f"{one}/rotate", self.rotate, "Replace an API key by a new one", 404, 409)

    def create(self, customer_id: str, posted: Post, body: NewKey | None = None) -> KeyMade:
        """Make an API key. Its text is in this answer and nowhere else: only its SHA-256 is kept."""
        wanted = body or NewKey()

        def change(keep: Keep) -> KeyMade:
            with self._database.write() as connection:
                refuse_deleted(customer_rows.find(connection, customer_id, locked=True))
                now = self._services.now_ms()
                made = self.write_new(connection, customer_id, wanted, posted.actor, now)
                keep(connection, made.model_copy(update={"key": None}))
            return self._let_in(made)

        return self._replies.once(posted, wanted, KeyMade, change)

    def list(self, customer_id: str, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> KeysShown:
        """List a customer's keys, revoked ones included."""
        after = None if cursor is None else position_of(cursor, int, str)
        with self._database.read() as connection:
            customer_rows.find(connection, customer_id)
            rows = api_key_rows.page(connection, customer_id, limit=limit + 1, after=after)
        last = rows[limit - 1] if len(rows) > limit else None
        following = cursor_of(last.created, last.key_id) if last else None
        return KeysShown(data=[shown(row) for row in rows[:limit]], next_cursor=following)

    def revoke(self, key_id: str, actor: Actor) -> None:
        """Revoke a key: it is refused from the next call on. Revoking it again changes nothing."""
        with self._database.write() as connection:
            before = api_key_rows.find(connection, key_id, locked=True)
            if before.revoked is None:
                after = replace(before, revoked=self._services.now_ms())
                api_key_rows.store_end(connection, after)
                self._record(connection, after.revoked or 0, actor, "key.revoke", before, shown(after))
        with saved_only():
            project_keys(self._database, self._services.projection, [key_id])

    def rotate(self, key_id: str, posted: Post, body: Rotation | None = None) -> KeyMade:
        """Replace a key: the new one works at once, the old one no longer, or until `overlap_s` have passed."""
        wanted = body or Rotation()

        def change(keep: Keep) -> KeyMade:
            with self._database.write() as connection:
                customer = api_key_rows.find(connection, key_id).customer
                refuse_deleted(customer_rows.find(connection, customer, locked=True))
                old = api_key_rows.find(connection, key_id, locked=True)
                if old.revoked is not None:
                    raise Conflict(f"The API key {key_id} was revoked; make a new one.", code="key_revoked")
                now = self._services.now_ms()
                expires = _lives_until(old, now) if wanted.expires is None else wanted.expires
                made = self._make(connection, customer, old.name, now, expires, replaces=key_id)
                api_key_rows.store_end(connection, _ended(old, now, wanted.overlap_s))
                self._record(connection, now, posted.actor, "key.rotate", old, made)
                keep(connection, made.model_copy(update={"key": None}))
            return self._let_in(made, key_id)

        return self._replies.once(posted, wanted, KeyMade, change)

    def write_new(self, connection: Connection, customer_id: str, wanted: NewKey, actor: str, now_ms: int) -> KeyMade:
        """Write a new key of a locked customer; the caller that commits it projects it."""
        made = self._make(connection, customer_id, wanted.name, now_ms, wanted.expires)
        self._record(connection, now_ms, actor, "key.create", None, made)
        return made

    def new(self, adding: Additions, customer_id: str, wanted: NewKey) -> KeyMade:
        """Return a new key of a locked or new customer, added to ``adding``."""
        _refuse_past(wanted.expires, adding.now_ms)
        text = api_key_rows.new_text(customer_id, self._services.random_bytes)
        return self._added(adding, customer_id, wanted, text[: api_key_rows.SHOWN], text, api_key_rows.digest_of(text))

    def imported(self, adding: Additions, customer_id: str, wanted: NewKey, digest: str, prefix: str) -> KeyMade:
        """Return a key that was made elsewhere, by the SHA-256 of its text, added to ``adding``."""
        _refuse_past(wanted.expires, adding.now_ms)
        return self._added(adding, customer_id, wanted, prefix, None, digest)

    def _added(
        self, adding: Additions, customer_id: str, wanted: NewKey, prefix: str, text: str | None, digest: str
    ) -> KeyMade:
        row = KeyRow(self._services.new_id("key"), customer_id, prefix, wanted.name, adding.now_ms, wanted.expires)
        made = KeyMade(**_facts(row), key=text)
        action, told = "key.import" if text is None else "key.create", made.model_dump(mode="json", exclude={"key"})
        adding.keys.append((row, digest))
        adding.audited.append(Audited(adding.now_ms, adding.actor, action, row.key_id, None, told))
        return made

    def _make(
        self,
        connection: Connection,
        customer_id: str,
        name: str | None,
        now_ms: int,
        expires: int | None,
        replaces: str | None = None,
    ) -> KeyMade:
        _refuse_past(expires, now_ms)
        text = api_key_rows.new_text(customer_id, self._services.random_bytes)
        row = KeyRow(self._services.new_id("key"), customer_id, text[: api_key_rows.SHOWN], name, now_ms, expires)
        api_key_rows.add(connection, row, api_key_rows.digest_of(text))
        return KeyMade(**_facts(row), key=text, replaces=replaces)

    def _let_in(self, made: KeyMade, *others: str) -> KeyMade:
        """Project a new key first and then the others, so that one of them works at every moment."""
        with saved_only(made):
            for key_id in (made.key_id, *others):
                project_keys(self._database, self._services.projection, [key_id])
        return made

    def _record(
        self, connection: Connection, now_ms: int, actor: str, action: str, before: KeyRow | None, after: KeyShown
    ) -> None:
        old = None if before is None else shown(before).model_dump(mode="json")
        new = after.model_dump(mode="json", exclude={"key"})
        target = after.key_id if before is None else before.key_id
        audit_rows.record(connection, time=now_ms, actor=actor, action=action, target=target, before=old, after=new)


def _refuse_past(expires: int | None, now_ms: int) -> None:
    if expires is not None and expires <= now_ms:
        raise Invalid.field("expires", "This has passed already.")


def _lives_until(old: KeyRow, now_ms: int) -> int | None:
    """Return when a key made now expires, with the lifetime of an older key."""
    return None if old.expires is None else now_ms + old.expires - old.created


def _ended(old: KeyRow, now_ms: int, overlap_s: int) -> KeyRow:
    if overlap_s == 0:
        return replace(old, revoked=now_ms)
    until = now_ms + overlap_s * 1000
    return replace(old, expires=until if old.expires is None else min(old.expires, until))
