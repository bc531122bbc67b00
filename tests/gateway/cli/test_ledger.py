"""``tokencap ledger`` and ``tokencap admin-token``: the books and the way back in, from the command line."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from gateway.local.datadir import DataDir
from tests.gateway.cli.commands import serving, tokencap
from tests.loop.rig import Sold

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}


@pytest.fixture
def kept(directory: Path) -> tuple[str, Sold]:
    """A gateway's directory with three calls in it, stopped; the admin token, and the customer who called."""
    with serving(directory) as gateway:
        token = gateway.admin_token()
        rig = gateway.rig(token)
        rig.tier("only", conversation_tokens_max=5, period_tokens_max=100)
        customer = rig.customer("only")
        for _ in range(3):
            url = f"{gateway.url}/v1/chat/completions"
            assert httpx.post(url, json=ASKED, headers=customer.headers, timeout=30).is_success
        assert gateway.stop() == 0
    return token, customer


def test_the_books_are_followed_and_an_edited_row_is_named(directory: Path, kept: tuple[str, Sold]) -> None:
    """Exit 0 while every row is as it was written; exit 1 naming the first one that is not."""
    sound = tokencap(directory, "ledger", "verify")
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE usage_records SET billed_output_tokens = 1 WHERE seq = 2")
        [record_id] = connection.execute("SELECT id FROM usage_records WHERE seq = 2").fetchone()

    edited = tokencap(directory, "ledger", "verify")

    assert (sound.returncode, sound.stdout) == (0, "Chain main: 3 rows, every one as it was written.\n")
    assert edited.returncode == 1
    assert edited.stdout.startswith(f"Chain main, row 2 ({record_id}): ")


def test_records_that_are_set_aside_are_counted(directory: Path, kept: tuple[str, Sold]) -> None:
    """They are in no chain, so that the chain is sound; the doctor wants something done about them."""
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as connection, connection:
        connection.execute("INSERT INTO usage_aside VALUES ('{b00}:usage', '1-0', 'record is not JSON', '{}')")

    verified, examined = tokencap(directory, "ledger", "verify"), tokencap(directory, "doctor")

    assert verified.returncode == 0
    assert "1 records are set aside" in verified.stdout
    assert examined.returncode == 1
    assert "change  ledger: 1 records are set aside" in examined.stdout


def test_a_lost_hot_state_is_rebuilt_from_the_books(directory: Path, kept: tuple[str, Sold]) -> None:
    """With everything gone that Valkey had, ``recover`` brings back customers, keys and what was used."""
    _, customer = kept
    shutil.rmtree(directory / "valkey")

    recovered = tokencap(directory, "ledger", "recover")

    assert recovered.returncode == 0, recovered.stderr
    assert recovered.stdout.startswith("The hot state is rebuilt from the ledger")
    assert DataDir(directory).remembered().children == ()
    with serving(directory) as gateway:
        account = httpx.get(f"{gateway.url}/v1/account", headers=customer.headers).json()
        assert account["period"]["tokens_used"] == 15


def test_recovering_beside_a_running_gateway_uses_its_server(directory: Path, kept: tuple[str, Sold]) -> None:
    """The gateway keeps serving afterwards, with what was used unchanged."""
    _, customer = kept
    with serving(directory) as gateway:
        recovered = tokencap(directory, "ledger", "recover")

        assert recovered.returncode == 0, recovered.stderr
        account = httpx.get(f"{gateway.url}/v1/account", headers=customer.headers).json()
        assert account["period"]["tokens_used"] == 15


def test_a_new_admin_token_retires_the_lost_one(directory: Path, kept: tuple[str, Sold]) -> None:
    """The printed token works, also while the gateway runs; the old one does no longer."""
    old, _ = kept
    new = tokencap(directory, "admin-token").stdout.strip()

    with serving(directory) as gateway:
        url = f"{gateway.url}/admin/customers"
        answers = {token: httpx.get(url, headers={"authorization": f"Bearer {token}"}) for token in (old, new)}

    assert answers[new].is_success
    assert answers[old].status_code == 401


@pytest.mark.parametrize("words", [("ledger", "verify"), ("admin-token",)])
def test_where_there_is_no_ledger_it_is_said(directory: Path, words: tuple[str, ...]) -> None:
    """Exit 3 and one sentence; no empty ledger is made by asking."""
    refused = tokencap(directory, *words)

    assert refused.returncode == 3
    assert refused.stderr == f"There is no ledger at {directory}/ledger.sqlite.\n"
    assert not directory.exists()
