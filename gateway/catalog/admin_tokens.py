"""The one admin token: kept as a SHA-256 digest, shown once when it is made, replaced by retiring it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from gateway.catalog import audit_rows
from gateway.errors import StartupError
from gateway.ledger.database import Database
from gateway.ledger.tables import admin_tokens

PREFIX = "tca-"
RETIRED = (
    "TOKENCAP_ADMIN_TOKEN: this token was retired, and a retired one never works again; set it to the token that "
    "replaced it, or to a new one, or leave it out."
)
TRUSTED_S = 1.0
"""How long a look-up is trusted, and so the longest that a retired token still works."""


def digest_of(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def ensure_admin_token(database: Database, given: str | None, now_ms: int) -> str | None:
    """Make sure that there is an admin token; return it where it had to be made, for this is when it is shown.

    Args:
        given: the operator's own, from the settings. It becomes the only one.

    Raises:
        StartupError: the operator's own was retired, and so may be known to whom it should not.
    """
    with database.write() as connection:
        if given is not None:
            if digest_of(given) in _retired(connection):
                raise StartupError(RETIRED, exit_code=2)
            _make_only(connection, digest_of(given), now_ms, actor="settings")
            return None
        if _live(connection):
            return None
        return _made(connection, now_ms, actor="start")


def new_admin_token(database: Database, now_ms: int) -> str:
    """Return a new admin token, retiring every other."""
    with database.write() as connection:
        return _made(connection, now_ms, actor="command")


def _made(connection: Connection, now_ms: int, actor: str) -> str:
    token = PREFIX + secrets.token_urlsafe(32)
    _make_only(connection, digest_of(token), now_ms, actor)
    return token


def _make_only(connection: Connection, digest: str, now_ms: int, actor: str) -> None:
    """Let in this token and no other from now on; a row of the audit says so, where that changes anything."""
    table, before = admin_tokens, _live(connection)
    if before == (digest,):
        return
    others = (table.c.retired.is_(None), table.c.digest != digest)
    connection.execute(update(table).where(*others).values(retired=now_ms))
    if digest not in before:
        connection.execute(table.insert().values(digest=digest, created=now_ms))
    audit_rows.record(
        connection,
        time=now_ms,
        actor=actor,
        action="token.new",
        target=actor_name(digest),
        before={"tokens": [actor_name(each) for each in before]} if before else None,
        after={"tokens": [actor_name(digest)]},
    )


def actor_name(digest: str) -> str:
    """Return how the audit names a token: by the beginning of its digest."""
    return f"token:{digest[:12]}"


def _retired(connection: Connection) -> frozenset[str]:
    rows = connection.execute(select(admin_tokens.c.digest).where(admin_tokens.c.retired.is_not(None)))
    return frozenset(rows.scalars())


def _live(connection: Connection) -> tuple[str, ...]:
    rows = connection.execute(select(admin_tokens.c.digest).where(admin_tokens.c.retired.is_(None)))
    return tuple(rows.scalars())


@dataclass(frozen=True, slots=True)
class _Looked:
    digests: tuple[str, ...]
    at_s: float


class AdminTokens:
    """Says whether a token is the admin's.

    A token that was good stays good for ``TRUSTED_S`` without asking the ledger; any other is looked up, so that a new
    one works at once.

    Args:
        now_s: a monotonic clock.
    """

    def __init__(self, database: Database, now_s: Callable[[], float]) -> None:
        self._database = database
        self._now_s = now_s
        self._looked = _Looked((), float("-inf"))

    def is_admin(self, token: str) -> bool:
        digest = digest_of(token)
        looked = self._looked
        if self._now_s() - looked.at_s < TRUSTED_S and _among(digest, looked.digests):
            return True
        asked_s = self._now_s()
        with self._database.read() as connection:
            self._looked = _Looked(_live(connection), asked_s)
        return _among(digest, self._looked.digests)


def _among(digest: str, digests: tuple[str, ...]) -> bool:
    """Compare each in a time that says nothing of how much of it was right."""
    return any(hmac.compare_digest(digest, each) for each in digests)
