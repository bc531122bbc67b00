"""The admin token: stored as a SHA-256 digest, shown once when it is created, retired when another replaces it."""

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
"""How long a look-up is trusted, which is also the longest time that a retired token still works."""


def digest_of(token: str) -> str:
    """Return the digest under which a token is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def ensure_admin_token(database: Database, configured: str | None, now_ms: int) -> str | None:
    """Create an admin token unless one exists; return it if it was created now, the only time that it is shown.

    Args:
        configured: the operator's own token, from the settings; it becomes the only token.

    Raises:
        StartupError: the operator's own token was retired, so other people may know it.
    """
    with database.write() as connection:
        if configured is not None:
            if digest_of(configured) in _retired(connection):
                raise StartupError(RETIRED, exit_code=2)
            _make_only(connection, digest_of(configured), now_ms, actor="settings")
            return None
        if _live(connection):
            return None
        return _create_token(connection, now_ms, actor="start")


def new_admin_token(database: Database, now_ms: int) -> str:
    """Create an admin token, retire all others, and return the new token."""
    with database.write() as connection:
        return _create_token(connection, now_ms, actor="command")


def _create_token(connection: Connection, now_ms: int, actor: str) -> str:
    token = PREFIX + secrets.token_urlsafe(32)
    _make_only(connection, digest_of(token), now_ms, actor)
    return token


def _make_only(connection: Connection, digest: str, now_ms: int, actor: str) -> None:
    """Make this token the only valid token; write an audit row where that changes anything."""
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
        before={"tokens": [actor_name(old_digest) for old_digest in before]} if before else None,
        after={"tokens": [actor_name(digest)]},
    )


def actor_name(digest: str) -> str:
    """Return the audit's name of a token: the beginning of its digest."""
    return f"token:{digest[:12]}"


def _retired(connection: Connection) -> frozenset[str]:
    rows = connection.execute(select(admin_tokens.c.digest).where(admin_tokens.c.retired.is_not(None)))
    return frozenset(rows.scalars())


def _live(connection: Connection) -> tuple[str, ...]:
    rows = connection.execute(select(admin_tokens.c.digest).where(admin_tokens.c.retired.is_(None)))
    return tuple(rows.scalars())


@dataclass(frozen=True, slots=True)
class _LookUp:
    digests: tuple[str, ...]
    at_s: float


class AdminTokens:
    """Decides whether a token is the admin token.

    A token that was valid stays valid for ``TRUSTED_S`` without a look-up in the ledger; any other token is looked up,
    so that a new token works at once.

    Args:
        now_s: a monotonic clock.
    """

    def __init__(self, database: Database, now_s: Callable[[], float]) -> None:
        self._database = database
        self._now_s = now_s
        self._look_up = _LookUp((), float("-inf"))

    def is_admin(self, token: str) -> bool:
        digest = digest_of(token)
        lookup = self._look_up
        if self._now_s() - lookup.at_s < TRUSTED_S and _among(digest, lookup.digests):
            return True
        looked_up_s = self._now_s()
        with self._database.read() as connection:
            self._look_up = _LookUp(_live(connection), looked_up_s)
        return _among(digest, self._look_up.digests)


def _among(digest: str, digests: tuple[str, ...]) -> bool:
    """Compare with each known digest in a time that does not depend on how many characters match."""
    return any(hmac.compare_digest(digest, known_digest) for known_digest in digests)
