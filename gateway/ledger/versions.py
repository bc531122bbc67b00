"""The versions of the ledger's tables: that of a database, that of this program, the way between."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Bring the tables to this version's shape, inside the caller's transaction; those of a later version have it."""
    if is_later(found(connection)):
        return
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def found(connection: Connection) -> str | None:
    """Return the version of the tables, or None where there are none."""
    return MigrationContext.configure(connection).get_current_revision()


def wanted() -> str | None:
    """Return the version that this program works with."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def is_later(version: str | None) -> bool:
    """Return whether tables are of a later version than this program's: later versions only add to it."""
    return version is not None and version > (wanted() or "")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
