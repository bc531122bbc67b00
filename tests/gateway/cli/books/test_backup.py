"""``tokencap backup`` and ``restore``: taken while customers call, it serves them on from another directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.holds.store.clients import connect
from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.loop.rig import Sold
from tests.servers import fresh_database

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}
ROUNDS = 3


def call(url: str, who: Sold) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=ASKED, headers=who.headers, timeout=60)


def calling(gateway: Serving, who: Sold, stop: threading.Event) -> list[threading.Thread]:
    """Call from four threads until told to stop."""

    def run() -> None:
        while not stop.is_set():
            assert call(gateway.url, who).is_success

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    return threads


@pytest.fixture(params=["sqlite", "postgresql"])
def ledgers(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Where the ledger is, and where the one is to be that is restored."""
    if request.param == "sqlite":
        yield {}, {}
        return
    server = request.getfixturevalue("postgres_server")
    with fresh_database(server) as one, fresh_database(server) as other:
        yield {"database_url": one}, {"database_url": other}


@pytest.mark.usefixtures("postgres_programs")
def test_a_backup_under_load_serves_on_elsewhere(
    directory: Path, ledgers: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    """It has what was settled before it was asked for; what the account says is what its records come to."""
    own, others = ledgers
    archive, elsewhere = tmp_path / "backup.tar.gz", directory.with_name("elsewhere")
    with serving(directory, **own) as gateway:
        token = gateway.admin_token()
        rig = gateway.rig(token)
        rig.tier("only", price_nanousd=1_000, period_tokens_max=10**9)
        who, stop = rig.customer("only"), threading.Event()
        threads = calling(gateway, who, stop)
        for number in range(ROUNDS):
            before = call(gateway.url, who).headers["x-request-id"]
            ran = tokencap(directory, "backup", "--to", str(archive if number == 0 else tmp_path / str(number)), **own)
            assert ran.returncode == 0, ran.stderr
        stop.set()
        for thread in threads:
            thread.join()
        assert gateway.stop() == 0

    restored = tokencap(elsewhere, "restore", "--from", str(tmp_path / str(ROUNDS - 1)), **others)
    verified = tokencap(elsewhere, "ledger", "verify", **others)
    with serving(elsewhere, **others) as gateway:
        rig = gateway.rig(token)
        records = rig.usage(who)
        account = rig.account(who)["period"]
        assert call(gateway.url, who).is_success
        assert len(rig.usage(who)) == len(records) + 1
        assert gateway.stop() == 0
    from_archive = tokencap(elsewhere.with_name("third"), "restore", "--from", str(archive))

    assert restored.returncode == 0, restored.stderr
    assert verified.returncode == 0
    assert before in {record["id"] for record in records}
    assert account["tokens_used"] == sum(record["billed_output_tokens"] for record in records)
    assert from_archive.returncode == (2 if own else 0), from_archive.stderr


def test_a_restored_ledger_beside_a_newer_redis_is_refused_until_somebody_decides(
    directory: Path, valkey_url: str, tmp_path: Path
) -> None:
    """The Redis knows of a call that the backup does not have."""
    elsewhere, where = directory.with_name("elsewhere"), {"redis_url": valkey_url}
    with serving(directory, **where) as gateway:
        token = gateway.admin_token()
        rig = gateway.rig(token)
        rig.tier("only", price_nanousd=1_000)
        who = rig.customer("only")
        assert call(gateway.url, who).is_success
        assert tokencap(directory, "backup", "--to", str(tmp_path / "backup"), **where).returncode == 0
        assert call(gateway.url, who).is_success
        assert len(rig.usage(who)) == 2
        assert gateway.stop() == 0
    with connect(valkey_url) as client:
        assert client.hget("tide", "booked") == b"2"

    restored = tokencap(elsewhere, "restore", "--from", str(tmp_path / "backup"), **where)
    refused = tokencap(elsewhere, "serve", **where)
    decided = tokencap(elsewhere, "ledger", "recover", "--book-missing", **where)
    with serving(elsewhere, **where) as gateway:
        rig = gateway.rig(token)
        assert call(gateway.url, who).is_success
        kinds = [record["kind"] for record in rig.usage(who)]

    assert restored.returncode == 0, restored.stderr
    assert refused.returncode == 3
    assert "The ledger ends at record 1 and has had 2: 1 records are missing" in refused.stderr
    assert decided.returncode == 0, decided.stderr
    assert kinds == ["usage", "correction", "usage"]


def test_where_there_is_nothing_to_back_up_or_restore_it_is_said(directory: Path, tmp_path: Path) -> None:
    backup = tokencap(directory, "backup", "--to", str(tmp_path / "backup"))
    restore = tokencap(directory, "restore", "--from", str(tmp_path / "none"))

    assert (backup.returncode, restore.returncode) == (3, 1)
    assert [len(one.stderr.splitlines()) for one in (backup, restore)] == [1, 1]
    assert not (tmp_path / "backup").exists()
