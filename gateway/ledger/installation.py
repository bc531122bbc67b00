"""The permanent facts of an installation: its currency, and its id, which ledger, Redis and data directory share."""

from __future__ import annotations

from dataclasses import dataclass

import redis
from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.errors import MeteringUnavailable, StartupError
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, text, translated
from gateway.ledger.database import Database
from gateway.ledger.tables import installation, usage_records

FIRST_GENERATION = 1
MARK = "installation"
"""The field of Redis' watermark that has the installation's id."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The id of a ledger, None before its first start, and the currency of all its amounts."""

    id: str | None
    currency: str | None


def begun(database: Database, *, new_id: str, currency: str | None, default: str, now_ms: int) -> tuple[str, str]:
    """Return the id and the currency of a ledger; a ledger without them gets them permanently.

    Args:
        currency: the operator's setting; None takes the ledger's currency, or ``default`` where there is none yet.

    Raises:
        StartupError: the ledger has another currency.
    """
    with database.write() as connection:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        first = dialect.insert(installation).values(id=1, generation=FIRST_GENERATION, created=now_ms)
        connection.execute(first.on_conflict_do_nothing())
        found = installation_of(connection)
        refuse_other(found.currency, currency)
        fixed = found.id or new_id, found.currency or currency or default
        connection.execute(update(installation).values(identity=fixed[0], currency=fixed[1]))
    return fixed


def found(database: Database) -> Installation:
    """Return the id and currency of a ledger; its records give the currency if the version that began it fixed none."""
    with database.read() as connection:
        return installation_of(connection)


def installation_of(connection: Connection) -> Installation:
    """Return what ``found`` returns, in the caller's transaction."""
    row = connection.execute(select(installation.c.identity, installation.c.currency)).one_or_none()
    identity, currency = (None, None) if row is None else row
    if currency is None:
        last = select(usage_records.c.currency).order_by(usage_records.c.chain, usage_records.c.seq.desc()).limit(1)
        currency = connection.execute(last).scalar_one_or_none()
    return Installation(identity, currency)


def currency_of(database: Database, currency: str | None, default: str) -> str:
    """Return a ledger's currency for a command that only reads it.

    Raises:
        StartupError: ``currency``, the operator's setting, differs.
    """
    fixed = found(database).currency
    refuse_other(fixed, currency)
    return fixed or currency or default


def refuse_other(fixed: str | None, currency: str | None) -> None:
    """Raise StartupError where a configured currency is not the ledger's."""
    if fixed is not None and currency is not None and fixed != currency:
        raise StartupError(
            f"The ledger is kept in {fixed} and TOKENCAP_CURRENCY is {currency}: an installation keeps its currency permanently. "
            f"Unset it, or use another ledger.",
            exit_code=2,
        )


def tie(redis_url: str, identity: str) -> None:
    """Write the installation's id into its Redis, which has no id before the first start or after it was emptied.

    Raises:
        StartupError: the Redis belongs to another installation.
    """
    try:
        with connect(redis_url) as client, translated():
            client.hsetnx(redis_keys.WATERMARK, MARK, identity)
            marked = _mark(client)
    except MeteringUnavailable:
        return  # a later check finds it once Redis is available
    if marked != identity:
        raise StartupError(
            f"This Redis belongs to installation {marked} and the ledger to {identity}: set TOKENCAP_REDIS_URL and "
            "TOKENCAP_DATABASE_URL to those of one installation, or empty the Redis if nothing in it is wanted."
        )


def refuse_other_redis(client: redis.Redis, database: Database) -> None:
    """Raise StartupError where Redis and the ledger belong to different installations; either may have no id yet.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable.
    """
    with translated():
        marked, identity = _mark(client), found(database).id
    if marked is not None and identity is not None and marked != identity:
        raise StartupError(
            f"This Redis belongs to installation {marked} and the ledger to {identity}: nothing is written to it."
        )


def _mark(client: redis.Redis) -> str | None:
    identity = client.hget(redis_keys.WATERMARK, MARK)
    return None if identity is None else text(identity)
