"""The ledger's database: SQLite or PostgreSQL by URL, opened so that every committed row is kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    NoSuchModuleError,
    OperationalError,
    TimeoutError,  # noqa: A004
)

from gateway.errors import MeteringUnavailable, StartupError
from gateway.ledger import versions

DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
CHECKPOINTS_MOST = 5
"""The most attempts to empty the log while readers keep it in use; each attempt waits up to ``WAIT_S``."""

WAIT_S = 10
CHECKPOINT_PAGES = 4_000
"""The pages in SQLite's log, 16 MB, at which a commit copies them to the file: a page that changes often only once."""

CACHE_KB = 2_000
WRITER_CACHE_KB = 16_000
"""How much of the file an SQLite connection caches. A connection that appends changes pages all over the indexes; pages
that it cannot cache until the commit are written early and read again."""

MIGRATION_LOCK = 0x746F6B656E636170  # "tokencap"; PostgreSQL's advisory locks are numbers
UNAVAILABLE = (OperationalError, InterfaceError, InternalError, TimeoutError)

UNLESS_STOPPED = f"SET lock_timeout = '{WAIT_S}s'; SET idle_in_transaction_session_timeout = '60s'"
"""A writer that is suspended inside a transaction loses the transaction after a minute, so it cannot keep the head."""


class Database:
    """Connections to one ledger. The constructor connects to nothing: the first statement does.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://…``.
        cache_kb: how much of an SQLite file each connection caches.

    Raises:
        StartupError: the URL is of another kind, from the constructor; the ledger cannot be opened, from ``migrate``
            and ``check``.
        MeteringUnavailable: the database is unavailable, from ``read`` and ``write``.
    """

    def __init__(self, url: str, *, cache_kb: int = CACHE_KB) -> None:
        self._url = _understood(url)
        self._engine = _engine(self._url, cache_kb)
        self._writing = self._engine.execution_options(writes=True)
        self._observer: sqlite3.Connection | None = None

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection inside a transaction that cannot write. Keep it under a second: page by key."""
        with _translated(), self._engine.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(postgresql_readonly=True)
            yield connection

    @contextmanager
    def unchanging(self) -> Iterator[Connection]:
        """Yield a connection like ``read`` does; all its statements see the ledger as it was at the first statement.

        On SQLite this is so for every transaction.
        """
        repeatable = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        engine = self._engine if self.is_sqlite else self._engine.execution_options(**repeatable)
        with _translated(), engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection inside a transaction: committed at the end, rolled back after an exception.

        On SQLite the transaction is the only writer from its beginning on (BEGIN IMMEDIATE).
        """
        with _translated(), self._writing.begin() as connection:
            yield connection

    def version(self) -> str:
        """Return a text that changes with each commit; on SQLite the call costs 10 µs.

        Raises:
            MeteringUnavailable: the database is unavailable.
        """
        if not self.is_sqlite:
            with self.read() as connection:
                return str(connection.execute(text("SELECT txid_current_snapshot()::text")).scalar_one())
        try:
            if self._observer is None:
                self._observer = sqlite3.connect(str(self._url.database), WAIT_S, check_same_thread=False)
            return str(self._observer.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise MeteringUnavailable from error

    def migrate(self) -> None:
        """Bring the tables to this version's shape. Of two processes that call this at once, one works, one waits."""
        with _explained(self._url):
            if self.is_sqlite:
                self._keep_a_log()
            with self._writing.begin() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SET LOCAL lock_timeout = '10min'"))
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
                versions.upgrade(connection)

    def _keep_a_log(self) -> None:
        """Switch the SQLite file permanently to a write-ahead log; this cannot be done in a SQLAlchemy transaction."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()

    @property
    def url(self) -> URL:
        """The URL of the database, with the password."""
        return self._url

    @property
    def place(self) -> str:
        """Where the database is, without a password."""
        return _place(self._url)

    def has_tables(self) -> bool:
        """Return whether the database is a ledger of any version; a missing file is not created."""
        if self.is_sqlite and not Path(str(self._url.database)).exists():
            return False
        with _explained(self._url), self._engine.connect() as connection:
            return bool(versions.found(connection) is not None)

    def is_a_file_without_tables(self) -> bool:
        """Return whether the database is an SQLite file that is not empty and yet has no tables."""
        if not self.is_sqlite or self.has_tables():
            return False
        path = Path(str(self._url.database))
        return path.exists() and path.stat().st_size > 0

    def check(self) -> None:
        """Refuse a ledger that cannot be opened, or whose tables are of an earlier version; change nothing."""
        if self.is_sqlite and not Path(str(self._url.database)).exists():
            raise StartupError(f"There is no ledger at {self._url.database}.")
        with _explained(self._url), self._engine.connect() as connection:
            found = versions.found(connection)
        wanted = versions.wanted()
        if found != wanted and not versions.is_later(found):
            raise StartupError(
                f"The ledger's tables are at version {found or 'none'} and this tokencap works with {wanted}: "
                "start `tokencap serve` of this version once, which brings them there."
            )

    def forget_what_was_erased(self) -> None:
        """Rewrite SQLite's file and empty its log, so that neither holds data that no row holds any more.

        The writer of the book waits meanwhile. PostgreSQL needs no such call: the next VACUUM removes its dead rows,
        and its log and backups expire with their retention.

        Raises:
            MeteringUnavailable: other connections used the file for too long; the call may be repeated.
        """
        if not self.is_sqlite:
            return
        with _translated():
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA query_only = OFF")
                cursor.execute("VACUUM")
                for _ in range(CHECKPOINTS_MOST):
                    if cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                        return
            except sqlite3.Error as error:
                raise MeteringUnavailable from error
            finally:
                connection.close()
        raise MeteringUnavailable

    def close(self) -> None:
        """Close every connection; the next statement opens a new one."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None
        self._engine.dispose()


def _understood(url: str) -> URL:
    try:
        parsed = make_url(url)
        driver = DRIVERS[parsed.get_backend_name()]
    except (ArgumentError, NoSuchModuleError, KeyError, ValueError) as error:
        raise StartupError(
            "TOKENCAP_DATABASE_URL is neither sqlite:///PATH nor postgresql://USER:PASSWORD@HOST/NAME.", exit_code=2
        ) from error
    if driver.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise StartupError("TOKENCAP_DATABASE_URL names no file: a ledger in memory keeps nothing.", exit_code=2)
    return parsed.set(drivername=driver)


def _place(url: URL) -> str:
    return str(url.database) if url.drivername.startswith("sqlite") else url.host or "PostgreSQL"


def _engine(url: URL, cache_kb: int) -> Engine:
    if url.drivername.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": WAIT_S}, pool_timeout=WAIT_S, hide_parameters=True)
        event.listen(engine, "connect", partial(_open_sqlite, cache_kb))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # Pre-ping notices that the server was restarted before a connection is used, not during its use.
    connect_args = {"connect_timeout": WAIT_S // 2}
    engine = create_engine(
        url,
        connect_args=connect_args,
        isolation_level="READ COMMITTED",
        pool_timeout=WAIT_S,
        pool_pre_ping=True,
        hide_parameters=True,  # errors of the database are logged without what customers sent
    )
    event.listen(engine, "connect", _open_postgresql)
    return engine


def _open_sqlite(cache_kb: int, connection: DBAPIConnection, _record: Any) -> None:
    connection.isolation_level = None  # ``_begin_sqlite`` begins the transactions
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    cursor.execute(f"PRAGMA cache_size = -{cache_kb}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # deleted content is overwritten, not only released
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}").close()
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN").close()


def _open_postgresql(connection: DBAPIConnection, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(UNLESS_STOPPED)
    cursor.close()
    connection.commit()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UNAVAILABLE as error:
        raise MeteringUnavailable from error


@contextmanager
def _explained(url: URL) -> Iterator[None]:
    """Turn a failure to open the ledger into one sentence, without the password."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0].rstrip(".")
        raise StartupError(f"The ledger at {_place(url)} cannot be opened: {reason}.") from error
