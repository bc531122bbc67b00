"""The versions of the ledger's tables: a database's, this program's, and the upgrade from one to the other."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

MIGRATIONS = Path(__file__).parent / "migrations"

alembic_version = Table("alembic_version", MetaData(), Column("version_num", String(32)))
"""Alembic's own table. It is read here without Alembic, which takes as long to load as the rest of a command."""


def upgrade(connection: Connection) -> None:
    """Bring the tables to this version's shape, inside the caller's transaction; tables of a later version have it."""
    version = found(connection)
    if version is not None and version >= wanted():
        return
    from alembic import command  # noqa: PLC0415 - only where there is something to upgrade
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def found(connection: Connection) -> str | None:
    """Return the version of the tables, or None where there are none."""
    if not inspect(connection).has_table(alembic_version.name):
        return None
    return connection.execute(select(alembic_version.c.version_num)).scalar_one_or_none()


@cache
def wanted() -> str:
    """Return the version that this program works with: the number that begins the newest migration's file name."""
    return max(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def is_later(version: str | None) -> bool:
    """Return whether tables are of a later version than this program's: later versions only add to it."""
    return version is not None and version > wanted()
