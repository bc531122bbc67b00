"""``tokencap ledger`` and ``tokencap admin-token``: the books and the way back in, from the command line."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from gateway.runtime.data_directory import DataDir
from tests.gateway.cli.commands import serving, tokencap
from tests.house.files import ROOT
from tests.loop.rig import Sold
from tests.servers import short_directory

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}


@pytest.fixture(scope="module")
def stopped() -> Iterator[tuple[Path, str, Sold]]:
    """A gateway's directory with three calls in it, stopped; the admin token, and the customer who called."""
    with short_directory() as place, serving(place / "data") as gateway:
        token = gateway.admin_token()
        rig = gateway.rig(token)
        rig.tier("only", conversation_tokens_max=5, period_tokens_max=100)
        customer = rig.customer("only")
        for _ in range(3):
            url = f"{gateway.url}/v1/chat/completions"
            assert httpx.post(url, json=ASKED, headers=customer.headers, timeout=30).is_success
        assert gateway.stop() == 0
        yield place / "data", token, customer


@pytest.fixture
def kept(directory: Path, stopped: tuple[Path, str, Sold]) -> tuple[str, Sold]:
    """A copy of the stopped gateway's directory for one test; the admin token, and the customer who called."""
    source, token, customer = stopped
    shutil.copytree(source, directory)
    return token, customer


def test_the_books_are_followed_and_an_edited_row_is_named(directory: Path, kept: tuple[str, Sold]) -> None:
    """Exit 0 while every row is as it was written; exit 1 naming the first one that is not."""
    sound = tokencap(directory, "ledger", "verify")
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as connection, connection:
        connection.execute("UPDATE usage_records SET billed_output_tokens = 1 WHERE seq = 2")
        [record_id] = connection.execute("SELECT id FROM usage_records WHERE seq = 2").fetchone()

    edited = tokencap(directory, "ledger", "verify")

    rows, seals = sound.stdout.splitlines()
    assert (sound.returncode, rows) == (0, "Chain main: 3 rows, every one as it was written.")
    assert seals.startswith("Chain main: ")
    assert " seals cover rows 1 to 3; the last has the hash " in seals
    assert edited.returncode == 1
    assert edited.stdout.startswith(f"Chain main, row 2 ({record_id}): ")


def test_a_ledger_that_was_written_anew_is_found_out_by_seals_that_were_kept(
    directory: Path, kept: tuple[str, Sold], tmp_path: Path
) -> None:
    """By the file of them and by the hash of one; without them nobody can tell."""
    seals = tmp_path / "seals.jsonl"
    seals.write_text(tokencap(directory, "ledger", "seals").stdout)
    last = json.loads(seals.read_text().splitlines()[-1])["hash"]
    options = (("--seals", str(seals)), ("--seal", last))
    before = [tokencap(directory, "ledger", "verify", *option) for option in options]
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as connection, connection:
        for table in ("usage_records", "chains", "seals", "rollup_read", "rollup_windows", "rollup_conversations"):
            connection.execute(f"DELETE FROM {table}")

    blind = tokencap(directory, "ledger", "verify")
    by_file, by_hash = (tokencap(directory, "ledger", "verify", *option) for option in options)

    assert [one.returncode for one in before] == [0, 0]
    assert (blind.returncode, blind.stdout) == (0, "The books are empty.\n")
    assert by_file.returncode == 1
    assert by_file.stdout.startswith("Chain main, row 1: the ledger has no seal 1, which was published")
    assert by_hash.returncode == 1
    assert f"no seal has the hash {last}" in by_hash.stdout


def test_a_running_sum_that_was_changed_is_named_and_added_up_anew(directory: Path, kept: tuple[str, Sold]) -> None:
    """Exit 1 naming the customer, its period and both numbers; `recover --recount` has the records decide."""
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as connection, connection:
        [tokens] = connection.execute("SELECT tokens_low FROM rollup_windows").fetchone()
        connection.execute("UPDATE rollup_windows SET tokens_low = 1")

    changed = tokencap(directory, "ledger", "verify")
    recovered = tokencap(directory, "ledger", "recover", "--recount")
    mended = tokencap(directory, "ledger", "verify")

    named = changed.stdout.splitlines()[-1]
    assert (changed.returncode, recovered.returncode, mended.returncode) == (1, 0, 0)
    assert named.startswith(f"Customer {kept[1].id}, period 20")
    assert named.endswith(f": tokens is stored as 1, and the records add up to {tokens}.")


def test_what_is_no_seal_is_wrong_use(directory: Path, kept: tuple[str, Sold], tmp_path: Path) -> None:
    seals = tmp_path / "seals.jsonl"
    seals.write_text('{"seq": 1}\n')

    found = [
        tokencap(directory, "ledger", "verify", *option)
        for option in (("--seals", str(seals)), ("--seals", str(tmp_path / "none")), ("--seal", "abc"))
    ]

    assert [one.returncode for one in found] == [2, 2, 2]
    assert [len(one.stderr.splitlines()) for one in found] == [1, 1, 1]


def test_a_record_is_proven_on_the_command_line(directory: Path, kept: tuple[str, Sold]) -> None:
    """What is printed passes the script that has nothing of ours."""
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as connection:
        [record_id] = connection.execute("SELECT id FROM usage_records WHERE seq = 2").fetchone()

    proof, none = tokencap(directory, "ledger", "proof", record_id), tokencap(directory, "ledger", "proof", "req_none")

    command = [sys.executable, "-I", "-S", str(ROOT / "docs" / "verify_proof.py")]
    checked = subprocess.run(command, input=proof.stdout, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert (none.returncode, none.stderr) == (1, "There is no usage record req_none.\n")


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
