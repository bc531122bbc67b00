"""Claims about what an installation is for good: one id for ledger, Redis and data directory, one currency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import update

from gateway.errors import StartupError
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.installation import begun, currency_of, found, refuse_other_redis, tie
from gateway.ledger.tables import installation
from gateway.runtime.installation_check import FILE, Mark, opened
from tests.gateway.ledger.records import record


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as client:
        yield client


def begin(database: Database, currency: str | None = None, new_id: str = "ins_1") -> tuple[str, str]:
    return begun(database, new_id=new_id, currency=currency, default="USD", now_ms=1)


def start(database: Database, directory: Path, new_id: str = "ins_1", currency: str | None = None) -> tuple[str, str]:
    return opened(database, directory, currency=currency, default_currency="USD", new_id=lambda: new_id, now_ms=1)


@pytest.mark.parametrize(("currency", "kept"), [(None, "USD"), ("EUR", "EUR")])
def test_the_first_start_fixes_id_and_currency(database: Database, currency: str | None, kept: str) -> None:
    assert begin(database, currency) == ("ins_1", kept)

    assert begin(database, new_id="ins_2") == ("ins_1", kept)
    assert begin(database, kept, new_id="ins_2") == ("ins_1", kept)
    with pytest.raises(StartupError, match=f"The ledger is kept in {kept} and TOKENCAP_CURRENCY is CHF"):
        begin(database, "CHF")
    assert begin(database) == ("ins_1", kept)


def test_a_ledger_of_before_has_the_currency_of_its_records(database: Database) -> None:
    append(database, [record(1, currency="EUR")])
    with pytest.raises(StartupError, match="The ledger is kept in EUR and TOKENCAP_CURRENCY is USD") as refused:
        begin(database, "USD")

    assert refused.value.exit_code == 2
    assert currency_of(database, None, "USD") == "EUR"
    assert begin(database) == ("ins_1", "EUR")


def test_who_only_reads_is_refused_another_currency_and_fixes_none(database: Database) -> None:
    assert currency_of(database, None, "USD") == "USD"
    assert currency_of(database, "EUR", "USD") == "EUR"
    assert found(database).currency is None
    begin(database, "EUR")

    assert currency_of(database, None, "USD") == "EUR"
    with pytest.raises(StartupError):
        currency_of(database, "USD", "USD")


def test_a_redis_is_tied_to_the_installation_that_first_starts_on_it(
    client: redis.Redis, valkey_url: str, database: Database
) -> None:
    begin(database)
    refuse_other_redis(client, database)
    tie(valkey_url, "ins_1")
    tie(valkey_url, "ins_1")
    refuse_other_redis(client, database)

    with pytest.raises(StartupError, match="belongs to installation ins_1 and the ledger to ins_2"):
        tie(valkey_url, "ins_2")
    with database.write() as connection:
        connection.execute(update(installation).values(identity="ins_2"))
    with pytest.raises(StartupError, match="nothing is written to it"):
        refuse_other_redis(client, database)
    client.delete(redis_keys.WATERMARK)
    tie(valkey_url, "ins_2")


def test_the_start_marks_the_directory_and_the_next_one_finds_the_same(empty_ledger_url: str, tmp_path: Path) -> None:
    database = Database(empty_ledger_url)

    assert start(database, tmp_path) == ("ins_1", "USD")
    assert start(database, tmp_path, new_id="ins_2") == ("ins_1", "USD")

    assert Mark.read(tmp_path) == Mark("ins_1", has_begun=True)
    database.close()


def emptied(database: Database, url: str) -> None:
    """Take a ledger away, so that an empty database is in its place."""
    if database.is_sqlite:
        database.close()
        for file in Path(url.removeprefix("sqlite:///")).parent.glob("ledger.sqlite*"):
            file.unlink()
        return
    with database.write() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")


def test_an_empty_ledger_in_the_place_of_one_that_was_there_is_refused(empty_ledger_url: str, tmp_path: Path) -> None:
    """Nothing is made in its place: no file, no table."""
    database = Database(empty_ledger_url)
    start(database, tmp_path)
    emptied(database, empty_ledger_url)

    for _ in range(2):
        with pytest.raises(StartupError, match=r"is empty, and the data directory .* has had one: put it back"):
            start(database, tmp_path)

    assert not database.has_tables()
    database.close()


def test_a_ledger_of_another_installation_is_refused(empty_ledger_url: str, tmp_path: Path) -> None:
    database = Database(empty_ledger_url)
    start(database, tmp_path)
    with database.write() as connection:
        connection.execute(update(installation).values(identity="ins_other"))

    with pytest.raises(StartupError, match=r"belongs to installation ins_1 and the ledger at .* to ins_other"):
        start(database, tmp_path)
    database.close()


def test_a_ledger_that_moves_to_another_machine_brings_its_installation(empty_ledger_url: str, tmp_path: Path) -> None:
    database = Database(empty_ledger_url)
    (one := tmp_path / "one").mkdir()
    (other := tmp_path / "other").mkdir()
    start(database, one)

    assert start(database, other, new_id="ins_2") == ("ins_1", "USD")

    assert Mark.read(other) == Mark("ins_1", has_begun=True)
    database.close()


def test_a_ledger_and_a_directory_of_before_are_marked(database: Database, tmp_path: Path) -> None:
    """An upgrade: the ledger has records and no id."""
    append(database, [record(1)])

    assert start(database, tmp_path) == ("ins_1", "USD")

    assert found(database).id == "ins_1"


def test_a_first_start_that_was_killed_is_begun_again(tmp_path: Path, sqlite_url: str) -> None:
    """Killed after the directory was marked, with a file that has no table yet."""
    Mark("ins_1", has_begun=False).write(tmp_path)
    database = Database(sqlite_url)
    without_tables(sqlite_url)

    assert start(database, tmp_path, new_id="ins_2") == ("ins_1", "USD")
    database.close()


def test_a_database_file_without_its_log_is_refused(tmp_path: Path, sqlite_url: str) -> None:
    """It has 4 kB and no table; a file of no bytes is a new one."""
    file = without_tables(sqlite_url)
    assert file.stat().st_size == 4096
    database = Database(sqlite_url)

    with pytest.raises(StartupError, match=r"is a database without any table, as is a copy .* without the -wal file"):
        start(database, tmp_path)
    emptied(database, sqlite_url)
    file.write_bytes(b"")

    assert start(database, tmp_path) == ("ins_1", "USD")
    database.close()


@pytest.mark.parametrize("text", ["", "{}", "[]", "half of {"])
def test_a_mark_that_cannot_be_read_is_not_guessed_at(tmp_path: Path, sqlite_url: str, text: str) -> None:
    (tmp_path / FILE).write_text(text)

    with pytest.raises(StartupError, match="does not say which installation this is"):
        start(Database(sqlite_url), tmp_path)


def without_tables(url: str) -> Path:
    """Return a copy of a running gateway's ledger, without the log that has everything."""
    database: Any = Database(url)
    database._keep_a_log()
    database.close()
    return Path(url.removeprefix("sqlite:///"))
