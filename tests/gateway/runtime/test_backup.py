"""Claims about backups: each is the ledger of one moment, is recounted, and becomes that installation again or is refused."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gateway.errors import StartupError
from gateway.ledger.book.appender import append
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.tables import usage_records
from gateway.runtime.backup_archive import PAGE, back_up, restore
from gateway.runtime.installation_check import Mark, opened
from tests.gateway.ledger.records import record
from tests.servers import fresh_database
from tests.waiting import until

TIME = 1_767_268_800_000


pytestmark = pytest.mark.usefixtures("postgres_programs")


def begun(url: str, directory: Path) -> Database:
    """Return a ledger as the first start leaves it."""
    directory.mkdir()
    database = Database(url)
    opened(database, directory, currency=None, default_currency="USD", new_id=lambda: "ins_1", now_ms=TIME)
    return database


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest, empty_ledger_url: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a second ledger of the same kind, which is not there yet."""
    if empty_ledger_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'second' / 'ledger.sqlite'}"
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        yield url


@pytest.fixture
def ledger(empty_ledger_url: str, tmp_path: Path) -> Iterator[Database]:
    """A ledger with ten rows, eight of them sealed."""
    with closing(begun(empty_ledger_url, tmp_path / "first")) as database:
        append(database, [record(number) for number in range(1, 9)])
        Sealer(database, lambda: TIME).turn()
        append(database, [record(number) for number in range(9, 11)])
        yield database


def content(database: Database) -> list[dict[str, object]]:
    return list(usage_records_in(database, Span()))


@pytest.mark.parametrize("name", ["backup", "backup.tar", "backup.tar.gz"])
def test_a_backup_becomes_the_installation_that_it_was_taken_of(
    ledger: Database, elsewhere: str, tmp_path: Path, name: str
) -> None:
    before = content(ledger)
    backups, found = back_up(ledger, tmp_path / name, TIME)
    append(ledger, [record(11)])
    (directory := tmp_path / "second").mkdir()

    with closing(Database(elsewhere)) as other:
        restored, recounts = restore(tmp_path / name, other, directory)

        assert (backups.state.installation, backups.state.seq, restored) == ("ins_1", 10, backups)
        assert [(one.rows, one.seals, one.bad) for one in (*found, *recounts)] == [(10, 1, None)] * 2
        assert content(other) == before
        assert Mark.read(directory) == Mark("ins_1", has_begun=True)
        append(other, [record(12)])
        assert verify_chain(other).rows == 11


def test_a_backup_is_of_one_moment_while_the_ledger_is_written(
    ledger: Database, elsewhere: str, tmp_path: Path
) -> None:
    """Whatever is booked meanwhile: what is restored is a beginning of the ledger, and adds up."""
    stop, numbers = threading.Event(), iter(range(1_000, 10**6))

    def write() -> None:
        while not stop.is_set():
            append(ledger, [record(next(numbers)) for _ in range(20)])

    writing = threading.Thread(target=write)
    writing.start()
    backups: list[Any] = []
    for number in range(3):
        until(lambda: len(content(ledger)) > (backups[-1].state.seq if backups else 0))
        backups.append(back_up(ledger, tmp_path / f"backup-{number}", TIME)[0])
    stop.set()
    writing.join()
    (directory := tmp_path / "second").mkdir()

    with closing(Database(elsewhere)) as other:
        restore(tmp_path / "backup-2", other, directory)

        assert 10 <= backups[0].state.seq < backups[1].state.seq < backups[2].state.seq
        assert verify_chain(other).rows == backups[2].state.seq
        assert content(other) == content(ledger)[: backups[2].state.seq]


def refused(action: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(StartupError) as found:
        action()
    return found.value.exit_code, found.value.message


def test_nothing_that_is_there_is_written_over(ledger: Database, elsewhere: str, tmp_path: Path) -> None:
    back_up(ledger, tmp_path / "backup", TIME)

    again = refused(lambda: back_up(ledger, tmp_path / "backup", TIME))
    used = refused(lambda: restore(tmp_path / "backup", ledger, tmp_path / "first"))
    (directory := tmp_path / "second").mkdir()
    Mark("ins_2", has_begun=True).write(directory)
    with closing(Database(elsewhere)) as other:
        marked = refused(lambda: restore(tmp_path / "backup", other, directory))

    assert [code for code, _ in (again, used, marked)] == [2, 2, 2]
    assert "is there already" in again[1]
    assert "a backup is restored into an empty directory and an empty database" in used[1] + marked[1]
    assert verify_chain(ledger).rows == 10


def test_a_damaged_backup_is_refused_and_leaves_nothing(ledger: Database, elsewhere: str, tmp_path: Path) -> None:
    backups, _ = back_up(ledger, tmp_path / "backup", TIME)
    back_up(ledger, tmp_path / "backup.tar", TIME)
    file, archive = tmp_path / "backup" / backups.file, tmp_path / "backup.tar"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    (directory := tmp_path / "second").mkdir()
    (tmp_path / "nothing").mkdir()

    with closing(Database(elsewhere)) as other:
        found = [
            refused(lambda name=name: restore(tmp_path / name, other, directory))  # type: ignore[misc]
            for name in ("backup", "backup.tar", "nothing", "none")
        ]

        assert [code for code, _ in found] == [1, 1, 1, 1]
        assert not other.has_tables()
    assert list(directory.iterdir()) == []


def test_a_page_that_does_not_say_where_the_ledger_ends_is_found_out(
    ledger: Database, elsewhere: str, tmp_path: Path
) -> None:
    back_up(ledger, tmp_path / "backup", TIME)
    page = tmp_path / "backup" / PAGE
    manifest = json.loads(page.read_text())
    manifest["state"]["seq"] = 9
    page.write_text(json.dumps(manifest))
    (directory := tmp_path / "second").mkdir()

    with closing(Database(elsewhere)) as other:
        code, sentence = refused(lambda: restore(tmp_path / "backup", other, directory))

        assert other.has_tables() is not other.is_sqlite, "PostgreSQL's is its operator's to drop"
        assert ("empty the database" in sentence) is other.has_tables()
    assert (code, "does not end where the backup says" in sentence) == (1, True)
    assert Mark.read(directory) is None


def test_the_books_of_a_copy_are_recounted(ledger: Database, tmp_path: Path) -> None:
    """A backup of books that do not add up is made, and it is said."""
    with ledger.write() as connection:
        connection.execute(update(usage_records).where(usage_records.c.seq == 3).values(charge_nanousd=1))

    _, found = back_up(ledger, tmp_path / "backup", TIME)

    assert [verify_chain.bad and verify_chain.bad.seq for verify_chain in found] == [3]


def test_a_backup_is_its_owners_alone(ledger: Database, tmp_path: Path) -> None:
    back_up(ledger, tmp_path / "backup", TIME)

    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_backup_of_the_other_kind_is_refused(
    ledger: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    back_up(ledger, tmp_path / "backup", TIME)
    (directory := tmp_path / "second").mkdir()
    url = request.getfixturevalue("postgres_url") if ledger.is_sqlite else f"sqlite:///{directory}/ledger.sqlite"

    with closing(Database(url)) as other:
        code, sentence = refused(lambda: restore(tmp_path / "backup", other, directory))

    assert (code, "is a backup of" in sentence) == (2, True)


def test_programs_that_are_not_installed_are_named(postgres_url: str, tmp_path: Path) -> None:
    with closing(begun(postgres_url, tmp_path / "first")) as database:
        os.environ["PATH"] = str(tmp_path)

        code, sentence = refused(lambda: back_up(database, tmp_path / "backup", TIME))

    assert code == 3
    assert sentence == "pg_dump is not installed: a ledger in PostgreSQL is backed up and restored with it."
    assert not (tmp_path / "backup").exists()
