"""The routes of API keys: create, list, revoke, rotate. A key's text is in one answer and nowhere else."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Actor, Keep, Post, Replies
from gateway.admin.api.inputs import Input, InputMoment, Moment, OneLine
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
    """A key to create."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "production"}]})

    name: OneLine | None = Field(default=None, description="The purpose of the key.", examples=["production"])
    expires: InputMoment | None = Field(default=None, description="The key is refused from then on; null means never.")


class Rotation(Input):
    """How a key is replaced."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: int = Field(
        default=0, ge=0, le=MAX_OVERLAP_S, description="How long the old key still works; 0 revokes it at once."
    )
    expires: InputMoment | None = Field(
        default=None, description="When the new key expires; if omitted, it has the old key's lifetime."
    )


class KeyShown(BaseModel):
    """An API key, without its text."""

    key_id: str = Field(examples=["key_0c41d7e2aa7b5f3c9e81d604"])
    customer: str = Field(examples=["cus_5bd0c1f2a47e9c3d10fa2b64"])
    name: str | None = Field(examples=["production"])
    prefix: str = Field(description="The beginning of the key's text.", examples=["tc-7f-Qm3xKd"])
    created: Moment
    expires: Moment | None
    revoked: Moment | None


class KeyMade(KeyShown):
    """A new API key, with its text, which is not shown again."""

    key: str | None = Field(
        description="The text that the customer sends as `Authorization: Bearer …`. Null where a repeated request made "
        "no key, and for a key made elsewhere.",
        examples=["tc-7f-Qm3xKd…"],
    )
    replaces: str | None = Field(default=None, description="The old key that it replaces.")


class KeysShown(Page[KeyShown]):
    """A customer's keys in the order they were created."""


def shown(row: KeyRow) -> KeyShown:
    return KeyShown(**_facts(row))


def _facts(row: KeyRow) -> dict[str, Any]:
    times = {name: getattr(row, name) for name in ("created", "expires", "revoked")}
    return asdict(row) | {name: None if ms is None else written(ms) for name, ms in times.items()}


class Keys:
    """Keys are admitted by their digest, in Redis; the ledger says which keys are valid."""

    def __init__(self, services: AdminServices, replies: Replies) -> None:
        self._services = services
        self._database = services.database
        self._replies = replies

    def add_to(self, routes: Routes) -> None:
        customer_path, key_path = "/customers/{customer_id}/keys", "/keys/{key_id}"
        routes.add("POST", customer_path, self.create, "Make an API key", 404, 409)
        routes.add("GET", customer_path, self.list, "List a customer's API keys", 404)
        routes.add("DELETE", key_path, self.revoke, "Revoke an API key", 404)
        routes.add("POST", f"{key_path}/rotate", self.rotate, "Replace an API key by a new key", 404, 409)

    def create(self, customer_id: str, posted: Post, body: NewKey | None = None) -> KeyMade:
        """Make an API key. Its text is in this answer and nowhere else: only its SHA-256 is stored."""
        requested = body or NewKey()

        def change(keep: Keep) -> KeyMade:
            with self._database.write() as connection:
                refuse_deleted(customer_rows.find(connection, customer_id, locked=True))
                now = self._services.now_ms()
                new_key = self.write_new(connection, customer_id, requested, posted.actor, now)
                keep(connection, new_key.model_copy(update={"key": None}))
            return self._let_in(new_key)

        return self._replies.once(posted, requested, KeyMade, change)

    def list(self, customer_id: str, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> KeysShown:
        """List a customer's keys, including revoked keys."""
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
        """Replace a key. The new key works at once; the old key stops at once, or after `overlap_s` seconds."""
        requested = body or Rotation()

        def change(keep: Keep) -> KeyMade:
            with self._database.write() as connection:
                customer = api_key_rows.find(connection, key_id).customer
                refuse_deleted(customer_rows.find(connection, customer, locked=True))
                old = api_key_rows.find(connection, key_id, locked=True)
                if old.revoked is not None:
                    raise Conflict(f"The API key {key_id} was revoked; make a new one.", code="key_revoked")
                now = self._services.now_ms()
                expires = _lives_until(old, now) if requested.expires is None else requested.expires
                new_key = self._make(connection, customer, old.name, now, expires, replaces=key_id)
                api_key_rows.store_end(connection, _ended(old, now, requested.overlap_s))
                self._record(connection, now, posted.actor, "key.rotate", old, new_key)
                keep(connection, new_key.model_copy(update={"key": None}))
            return self._let_in(new_key, key_id)

        return self._replies.once(posted, requested, KeyMade, change)

    def write_new(
        self, connection: Connection, customer_id: str, requested: NewKey, actor: str, now_ms: int
    ) -> KeyMade:
        """Write a new key of a locked customer; the caller commits and projects it."""
        new_key = self._make(connection, customer_id, requested.name, now_ms, requested.expires)
        self._record(connection, now_ms, actor, "key.create", None, new_key)
        return new_key

    def new(self, adding: Additions, customer_id: str, requested: NewKey) -> KeyMade:
        """Add a new key of a locked or new customer to ``adding``, and return it."""
        _refuse_past(requested.expires, adding.now_ms)
        text = api_key_rows.new_text(customer_id, self._services.random_bytes)
        return self._added(
            adding, customer_id, requested, text[: api_key_rows.SHOWN], text, api_key_rows.digest_of(text)
        )

    def imported(self, adding: Additions, customer_id: str, requested: NewKey, digest: str, prefix: str) -> KeyMade:
        """Add a key that was made elsewhere, by the SHA-256 of its text, to ``adding``, and return it."""
        _refuse_past(requested.expires, adding.now_ms)
        return self._added(adding, customer_id, requested, prefix, None, digest)

    def _added(
        self, adding: Additions, customer_id: str, requested: NewKey, prefix: str, text: str | None, digest: str
    ) -> KeyMade:
        row = KeyRow(
            self._services.new_id("key"), customer_id, prefix, requested.name, adding.now_ms, requested.expires
        )
        new_key = KeyMade(**_facts(row), key=text)
        action, after = "key.import" if text is None else "key.create", new_key.model_dump(mode="json", exclude={"key"})
        adding.keys.append((row, digest))
        adding.audited.append(Audited(adding.now_ms, adding.actor, action, row.key_id, None, after))
        return new_key

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

    def _let_in(self, new_key: KeyMade, *others: str) -> KeyMade:
        """Project a new key first and then the others, so that at every moment at least one key works."""
        with saved_only(new_key):
            for key_id in (new_key.key_id, *others):
                project_keys(self._database, self._services.projection, [key_id])
        return new_key

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
