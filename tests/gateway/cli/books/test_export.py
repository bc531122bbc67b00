"""``tokencap export`` writes the records of a time, from the database alone."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.tables import customers
from tests.gateway.cli.commands import COMMAND, environment, tokencap
from tests.gateway.ledger.records import customer_row, record

NOVEMBER_MS = 1_793_491_200_000  # 2026-11-01T00:00:00Z
DAY_MS = 86_400_000


@pytest.fixture
def ledger(sqlite_url: str) -> str:
    """A ledger with one record a day, the first four days of November."""
    with closing(Database(sqlite_url)) as database:
        database.migrate()
        append(database, [record(id=f"req_{day}", time=NOVEMBER_MS + day * DAY_MS) for day in range(4)])
    return sqlite_url


def test_a_half_open_time_is_written_to_a_file(directory: Path, ledger: str, tmp_path: Path) -> None:
    """``--from`` is in it, ``--to`` is not; a date is its first instant in UTC."""
    out = tmp_path / "usage.jsonl"
    words = ("--format", "jsonl", "--from", "2026-11-02", "--to", "2026-11-04T00:00:00Z", "--open", "--out", str(out))

    written = tokencap(directory, "export", *words, database_url=ledger)

    assert written.returncode == 0, written.stderr
    assert written.stdout.startswith("2 records with ")
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["req_1", "req_2"]
    assert out.with_name("usage.jsonl.manifest.json").exists()


def test_standard_output_gets_the_same_bytes_and_nothing_else(directory: Path, ledger: str, tmp_path: Path) -> None:
    """What ``-`` writes can be piped on."""
    out = tmp_path / "usage.csv"
    words = ("--format", "csv", "--from", "2026-11-01", "--to", "2026-12-01", "--open", "--out")

    tokencap(directory, "export", *words, str(out), database_url=ledger)
    piped = tokencap(directory, "export", *words, "-", database_url=ledger)

    assert piped.stdout == out.read_text()
    assert len(piped.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("since", "until", "form", "sentence"),
    [
        ("yesterday", "2026-12-01", "jsonl", "--from: A time is RFC 3339"),
        ("2026-11-01", "2026-13-01", "jsonl", "--to: A time is RFC 3339"),
        ("2026-12-01", "2026-11-01", "jsonl", "--from is later than --to."),
        ("2026-11-01", "2026-12-01", "xml", "There is no export format 'xml'; there are jsonl, csv."),
    ],
)
def test_wrong_use_writes_nothing(
    directory: Path, ledger: str, tmp_path: Path, since: str, until: str, form: str, sentence: str
) -> None:
    """Exit 2 and one sentence that names what is wrong."""
    out = tmp_path / "usage"
    words = ("--format", form, "--from", since, "--to", until, "--out", str(out))

    refused = tokencap(directory, "export", *words, database_url=ledger)

    assert refused.returncode == 2
    assert refused.stderr.startswith(sentence)
    assert not out.exists()


def test_long_work_shows_on_a_terminal_how_far_it_is(directory: Path, sqlite_url: str, tmp_path: Path) -> None:
    """Where standard error is a terminal the number of records is on its last line while they are written."""
    with closing(Database(sqlite_url)) as database:
        database.migrate()
        append(database, [record(number, time=NOVEMBER_MS) for number in range(1_000)])
    words = ("export", "--open", "--from", "2026-11-01", "--to", "2026-12-01", "--out", str(tmp_path / "usage.jsonl"))
    terminal, ours = os.openpty()

    subprocess.run([*COMMAND, *words], env=environment(directory, database_url=sqlite_url), stderr=ours, check=True)

    os.close(ours)
    screen = os.read(terminal, 100)
    os.close(terminal)
    assert b"1,000 records" in screen


def test_a_ledger_that_is_not_there_is_one_sentence_and_is_not_begun(directory: Path, tmp_path: Path) -> None:
    """Nor is one whose tables this version does not know changed."""
    empty, out = tmp_path / "empty.sqlite", tmp_path / "usage.jsonl"
    empty.touch()
    words = ("--format", "jsonl", "--from", "2026-11-01", "--to", "2026-12-01", "--open", "--out", str(out))

    missing = tokencap(directory, "export", *words, database_url=f"sqlite:///{tmp_path / 'no.sqlite'}")
    bare = tokencap(directory, "export", *words, database_url=f"sqlite:///{empty}")

    assert missing.stderr == f"There is no ledger at {tmp_path / 'no.sqlite'}.\n"
    assert "The ledger's tables are at version none" in bare.stderr
    assert {missing.returncode, bare.returncode} == {3}
    assert [path.name for path in tmp_path.iterdir()] == ["empty.sqlite"]
    assert empty.read_bytes() == b""


def test_a_place_that_cannot_be_written_is_one_sentence(directory: Path, ledger: str, tmp_path: Path) -> None:
    """Exit 3, naming the file."""
    out = tmp_path / "nowhere" / "usage.jsonl"
    words = ("--open", "--from", "2026-11-01", "--to", "2026-12-01", "--out", str(out))

    refused = tokencap(directory, "export", *words, database_url=ledger)

    assert refused.returncode == 3
    assert refused.stderr == f"{out}.part: No such file or directory.\n"


@pytest.fixture
def closed(sqlite_url: str) -> str:
    """A ledger with a customer in Tokyo whose October is closed, a call in it, and one that came later."""
    october = NOVEMBER_MS - 16 * DAY_MS
    with closing(Database(sqlite_url)) as database:
        database.migrate()
        with database.write() as connection:
            connection.execute(insert(customers), [customer_row("cus_tokyo", timezone="Asia/Tokyo")])
        append(database, [record(1, customer="cus_tokyo", time=october), record(2, customer="cus_other", time=october)])
        with database.write() as connection:
            close(connection, list(months_of(database, "2026-10")), NOVEMBER_MS)
        append(database, [record(3, customer="cus_tokyo", time=october)])
    return sqlite_url


def test_a_closed_month_is_written_as_it_was_closed(directory: Path, closed: str, tmp_path: Path) -> None:
    """In the customer's zone, without what came later; the format is the file's ending, and the manifest says it is closed."""
    out = tmp_path / "october.csv"
    words = ("--period", "2026-10", "--customer", "cus_tokyo", "--out", str(out))

    written = tokencap(directory, "export", *words, database_url=closed)

    assert written.returncode == 0, written.stderr
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == ["id", "call-000001"]
    assert json.loads(out.with_name("october.csv.manifest.json").read_text())["closed"] is True


def test_what_is_open_is_written_only_where_that_is_said(directory: Path, closed: str, tmp_path: Path) -> None:
    """Exit 1 without ``--open``; with it the manifest says that it is open."""
    out = tmp_path / "november.jsonl"
    words = ("--period", "2026-11", "--out", str(out))

    refused = tokencap(directory, "export", *words, database_url=closed)
    written = tokencap(directory, "export", *words, "--open", database_url=closed)

    assert (refused.returncode, written.returncode) == (1, 0)
    assert refused.stderr.startswith("Some of this is not closed")
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["call-000003"]
    assert json.loads(out.with_name("november.jsonl.manifest.json").read_text())["closed"] is False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--period", "2026-13"), "--period: a month is written as 2026-10."),
        (("--period", "2026-10", "--to", "2026-11-01"), "--period stands in place of --from and --to."),
        (("--from", "2026-10-01"), "Say which time: --period, or --from and --to."),
    ],
)
def test_a_time_is_said_in_one_way(directory: Path, ledger: str, words: tuple[str, ...], sentence: str) -> None:
    refused = tokencap(directory, "export", *words, "--out", "-", database_url=ledger)

    assert (refused.returncode, refused.stderr) == (2, sentence + "\n")
