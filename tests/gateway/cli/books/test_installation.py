"""``tokencap serve`` on what does not belong together: a sentence with what to do, and nothing changed."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.gateway.cli.commands import serving, tokencap
from tests.servers import short_directory

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def stopped() -> Iterator[Path]:
    """A data directory in which a gateway has run, with a record in EUR."""
    with short_directory() as place, serving(place / "data", currency="EUR") as gateway:
        rig = gateway.rig(gateway.admin_token())
        rig.tier("only", conversation_tokens_max=5)
        url = f"{gateway.url}/v1/chat/completions"
        assert httpx.post(url, json=ASKED, headers=rig.customer("only").headers, timeout=30).is_success
        assert gateway.stop() == 0
        yield place / "data"


@pytest.fixture
def begun(directory: Path, stopped: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(stopped, directory)
    return directory


def test_the_currency_is_the_ledgers(begun: Path, tmp_path: Path) -> None:
    """Another one is refused by whatever reads or writes amounts; without the setting the ledger's is in force."""
    words = (
        ("serve",),
        ("export", "--open", "--from", "2026-01-01", "--to", "2100-01-01", "--out", str(tmp_path / "usage.jsonl")),
        ("bookkeeper", "--watch-fd", "0"),
        ("ledger", "recover"),
    )

    refused = [tokencap(begun, *arguments, currency="USD") for arguments in words]
    exported = tokencap(begun, *words[1])
    with serving(begun) as gateway:
        gateway.stop()

    assert [one.returncode for one in refused] == [2, 2, 2, 2]
    assert all("The ledger is kept in EUR and TOKENCAP_CURRENCY is USD" in one.stderr for one in refused)
    assert exported.returncode == 0, exported.stderr


def test_an_empty_ledger_does_not_begin_an_installation_anew(begun: Path) -> None:
    """Where the file is gone, and where it is there without the log that has what is in it."""
    ledger = begun / "ledger.sqlite"
    kept = ledger.read_bytes()
    ledger.unlink()
    gone = tokencap(begun, "serve")
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    without_log = tokencap(begun, "serve")
    ledger.write_bytes(kept)

    with serving(begun) as gateway:
        gateway.stop()

    assert [one.returncode for one in (gone, without_log)] == [3, 3]
    assert all("is empty, and the data directory" in one.stderr for one in (gone, without_log))


def test_a_valkey_of_another_installation_is_refused(begun: Path) -> None:
    """Nothing of either is changed: each serves on once it has its own again."""
    other = begun.with_name("other")
    with serving(other) as gateway:
        gateway.stop()
    shutil.move(begun / "valkey", begun / "valkey.own")
    shutil.copytree(other / "valkey", begun / "valkey")

    refused = [tokencap(begun, "serve"), tokencap(begun, "ledger", "recover")]
    shutil.rmtree(begun / "valkey")
    shutil.move(begun / "valkey.own", begun / "valkey")

    assert [one.returncode for one in refused] == [3, 3]
    assert all("This Redis belongs to installation ins_" in one.stderr for one in refused)
    for directory in (begun, other):
        with serving(directory) as gateway:
            gateway.stop()
