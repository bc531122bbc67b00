"""Claims about opening, migrating and using the ledger's database."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select, text

from gateway.errors import MeteringUnavailable, StartupError
from gateway.ledger.billing_tables import metadata
from gateway.ledger.book.appender import append
from gateway.ledger.book.chain import GENESIS, link
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import CACHE_KB, CHECKPOINT_PAGES, WRITER_CACHE_KB, Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.tables import chains
from gateway.ledger.versions import MIGRATIONS, found, wanted
from pricing.usage import FIELDS_IF_SAID
from tests.gateway.ledger.records import record

ROW = {"chain": "main", "seq": 0, "hash": "0" * 64}


def migrate(url: str) -> None:
    database = Database(url)
    database.migrate()
    database.close()


def test_the_migrations_build_exactly_the_tables_the_code_uses(empty_ledger_url: str) -> None:
    database = Database(empty_ledger_url)

    database.migrate()

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})

        assert compare_metadata(context, metadata) == []
    database.close()


def test_the_version_that_the_files_name_is_where_the_migrations_lead(database: Database) -> None:
    """It is read from the names of the files alone, by every process that opens a ledger."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)

    assert [Path(script.path).name.split("_")[0] for script in scripts.walk_revisions()] == [
        script.revision for script in scripts.walk_revisions()
    ]
    assert wanted() == scripts.get_current_head()
    with database.read() as connection:
        assert found(connection) == wanted() == MigrationContext.configure(connection).get_current_revision()


def test_a_ledger_of_this_version_is_opened_without_loading_the_migrations(ledger_url: str) -> None:
    opening = "database = Database(sys.argv[1]); database.migrate(); database.check(); print('alembic' in sys.modules)"
    words = [sys.executable, "-c", f"import sys; from gateway.ledger.database import Database; {opening}", ledger_url]

    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"


def test_migrating_twice_changes_nothing(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(chains).values(ROW))

    database.migrate()

    with database.read() as connection:
        assert [dict(row) for row in connection.execute(select(chains)).mappings()] == [ROW]


def test_a_ledger_from_before_a_field_keeps_its_hashes_and_goes_on(empty_ledger_url: str) -> None:
    """What was booked then is read back as it was hashed, without a field that it never had."""
    database = Database(empty_ledger_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    old = {name: value for name, value in record(1).items() if name not in FIELDS_IF_SAID}
    linked = link(GENESIS, {**old, "chain": "main", "seq": 1})
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        fields = ", ".join(linked)
        values = ", ".join(f":{name}" for name in linked)
        connection.execute(text(f"INSERT INTO usage_records ({fields}) VALUES ({values})"), linked)
        connection.execute(insert(chains).values(chain="main", seq=1, hash=linked["hash"]))

    database.migrate()
    append(database, [record(2), record(3, end_user=None)])

    assert verify_chain(database).bad is None
    first, second, third = usage_records_in(database, Span())
    assert first == linked
    assert (second["end_user"], third.get("end_user", "left out")) == ("ann", "left out")
    database.close()


def test_three_processes_may_migrate_one_ledger_at_once(empty_ledger_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=migrate, args=(empty_ledger_url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    Database(empty_ledger_url).check()


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(insert(chains).values(ROW))
        raise ZeroDivisionError

    with database.read() as connection:
        assert connection.execute(select(chains)).all() == []


def test_a_reader_cannot_write_and_a_writer_after_it_can(database: Database) -> None:
    with pytest.raises(MeteringUnavailable), database.read() as connection:
        connection.execute(insert(chains).values(ROW))
    with database.write() as connection:
        connection.execute(insert(chains).values(ROW))

    with database.read() as connection:
        assert len(connection.execute(select(chains)).all()) == 1


def test_its_version_is_another_after_each_commit_of_anybody(database: Database) -> None:
    """Of this process or another; also of a transaction that began before another one that was committed first."""
    others = Database(database.url.render_as_string(hide_password=False))
    versions = [database.version()]
    assert database.version() == versions[0]

    for seq, writer in enumerate((database, others)):
        with writer.write() as connection:
            connection.execute(insert(chains).values(ROW | {"chain": f"c{seq}"}))
        versions.append(database.version())
    assert others.version() == others.version()
    assert len(set(versions)) == 3
    with pytest.raises(ZeroDivisionError), others.write() as connection:
        raise ZeroDivisionError
    others.close()


def test_sqlite_keeps_every_commit(sqlite_url: str) -> None:
    """WAL lets readers and the writer be; FULL flushes the log at each commit."""
    database = Database(sqlite_url)
    database.migrate()

    with database.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA wal_autocheckpoint")).scalar() == CHECKPOINT_PAGES
    database.close()


def test_who_appends_keeps_more_of_the_file_in_memory(sqlite_url: str) -> None:
    """Others have many connections, and each of them keeps little."""
    for options, kept in (({}, CACHE_KB), ({"cache_kb": WRITER_CACHE_KB}, WRITER_CACHE_KB)):
        database = Database(sqlite_url, **options)
        with database.read() as connection:
            assert connection.execute(text("PRAGMA cache_size")).scalar() == -kept
        database.close()


def test_a_server_that_went_away_is_metering_unavailable(postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(MeteringUnavailable), database.read() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with database.read() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    database.close()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://root@localhost/db", "redis://localhost", "sqlite://", "sqlite:///:memory:"]
)
def test_a_url_of_another_kind_is_refused_as_wrong_use(url: str) -> None:
    with pytest.raises(StartupError) as refused:
        Database(url)

    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:se-cret@127.0.0.1:9/ledger",
        "postgresql://someone@127.0.0.1:9/ledger?password=se-cret",
        "postgres://someone:se-cret@/ledger?host=/nowhere",
    ],
)
def test_a_server_that_is_not_there_is_one_sentence_without_the_password(url: str) -> None:
    with pytest.raises(StartupError) as refused:
        Database(url).migrate()

    assert refused.value.exit_code == 3
    assert "se-cret" not in refused.value.message
    assert "\n" not in refused.value.message


def test_a_directory_that_is_not_there_is_one_sentence_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "none" / "ledger.sqlite"

    with pytest.raises(StartupError, match=f"The ledger at {path} cannot be opened: unable to open database file"):
        Database(f"sqlite:///{path}").migrate()


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database, but long enough to be one" * 100)

    with pytest.raises(StartupError, match="file is not a database"):
        Database(f"sqlite:///{path}").migrate()


def test_asking_for_a_ledger_that_is_not_there_does_not_create_it(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="There is no ledger at"):
        Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}").check()

    assert list(tmp_path.iterdir()) == []


def test_tables_of_a_later_version_are_left_as_they_are(ledger_url: str) -> None:
    """A later tokencap only adds to them; the one before it goes on beside it, or after it."""
    database = Database(ledger_url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    database.migrate()

    database.check()
    with database.read() as connection:
        assert found(connection) == "9999"
    database.close()


def test_a_ledger_without_tables_is_told_from_one_with_them(postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(StartupError, match="version none"):
        database.check()

    database.migrate()

    database.check()
    database.close()
