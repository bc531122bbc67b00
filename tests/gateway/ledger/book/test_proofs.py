"""Claims about proofs: who has one checks it with a script that has nothing of ours, and no other record passes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import event, update

from gateway.errors import HouseError, NotSealedYet
from gateway.ledger.book.appender import append
from gateway.ledger.book.erasure import erase_records
from gateway.ledger.book.proofs import proof_of
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.seals import seals_in_order
from gateway.ledger.book.verify import Published, verify_chain
from gateway.ledger.database import Database
from gateway.ledger.tables import seals, usage_records
from tests.gateway.ledger.records import record
from tests.house.files import ROOT

SCRIPT = ROOT / "docs" / "verify_proof.py"
TIME = 1_767_268_800_000


def checked(proof: Any, *kept: str) -> subprocess.CompletedProcess[str]:
    """Run the script as anyone would: in an interpreter that finds nothing but the standard library."""
    command = [sys.executable, "-I", "-S", str(SCRIPT), *kept]
    return subprocess.run(command, input=json.dumps(proof), capture_output=True, text=True, timeout=60, check=False)


def add(database: Database, first: int, last: int, **changes: Any) -> list[str]:
    added = append(database, [record(number, **changes) for number in range(first, last + 1)])
    return [one["id"] for one in added]


def proven(database: Database, record_id: str) -> dict[str, Any]:
    proof = proof_of(database, record_id)
    assert proof is not None
    return proof


@pytest.fixture
def sealed(database: Database) -> list[str]:
    """The ids of 2,345 rows under three seals, the last of which is no full one."""
    ids = add(database, 1, 2_345)
    Sealer(database, lambda: TIME).turn(all_of_it=True)
    return ids


def test_the_script_is_thirty_lines_and_has_nothing_of_ours() -> None:
    text = SCRIPT.read_text("utf-8")

    assert len(text.splitlines()) <= 30
    assert not {"gateway", "pricing", "tokencap"} & set(text.split())


def test_the_first_the_last_and_random_rows_are_proven(database: Database, sealed: list[str]) -> None:
    draw = random.Random(1)
    kept = {seal.seq: seal.hash for seal in seals_in_order(database)}
    for record_id in (sealed[0], sealed[-1], *draw.sample(sealed, 3)):
        proof = proven(database, record_id)

        found = checked(proof, kept[proof["seal"]["seq"]])

        assert (found.returncode, found.stderr) == (0, "")
        assert found.stdout.startswith(f"{record_id} is row {proof['record']['seq']}, under seal ")


def test_a_row_that_is_alone_under_its_seal_is_proven(database: Database) -> None:
    [record_id] = add(database, 1, 1, end_user="Zoë “\u2028\\”", client_request_id='a"b')
    Sealer(database, lambda: TIME).turn()

    proof = proven(database, record_id)

    assert proof["path"] == []
    assert checked(proof).returncode == 0


def changed(proof: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(proof))
    at = copy
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = to
    return copy


def test_a_proof_of_anything_else_is_refused(database: Database, sealed: list[str]) -> None:
    proof, other = proven(database, sealed[1_234]), proven(database, sealed[1_235])
    wrong = {
        "another charge": changed(proof, "record", "charge_nanousd", to=1),
        "another hash": changed(proof, "record", "hash", to="0" * 64),
        "another row": changed(proof, "record", to=other["record"]),
        "another leaf": changed(proof, "leaf", to=other["leaf"]),
        "another path": changed(proof, "path", to=other["path"]),
        "half a path": changed(proof, "path", to=proof["path"][:-1]),
        "a longer path": changed(proof, "path", to=[*proof["path"], proof["path"][0]]),
        "another root": changed(proof, "seal", "root", to="0" * 64),
        "other bounds": changed(proof, "seal", "first_seq", to=proof["seal"]["first_seq"] - 1),
        "another hash of the seal": changed(proof, "seal", "hash", to="0" * 64),
    }

    passed = [name for name, one in wrong.items() if checked(one).returncode == 0]

    assert passed == []
    assert checked(proof).returncode == 0
    assert "another seal than the one you kept" in checked(proof, "0" * 64).stderr


def test_a_proof_reads_as_much_of_a_long_book_as_of_a_short_one(database: Database) -> None:
    """The record, its seal, that one's leaves, and whether it was erased: four questions that an index answers."""
    statements: list[str] = []

    def read(*execution: Any) -> None:
        statements.append(execution[2])

    ids = add(database, 1, 30)
    Sealer(database, lambda: TIME, rows=10).turn(all_of_it=True)
    with database.read() as connection:
        engine = connection.engine
    event.listen(engine, "before_cursor_execute", read)
    try:
        proof_of(database, ids[17])
    finally:
        event.remove(engine, "before_cursor_execute", read)

    assert len([one for one in statements if one.lstrip().upper().startswith("SELECT")]) == 4


def test_what_is_not_sealed_yet_or_is_not_there_has_no_proof(database: Database, sealed: list[str]) -> None:
    [late] = add(database, 9_000, 9_000)

    with pytest.raises(NotSealedYet):
        proof_of(database, late)
    assert proof_of(database, "call-none") is None
    assert proof_of(database, sealed[0], "cus_acme") is not None
    assert proof_of(database, sealed[0], "cus_other") is None


def test_a_record_that_was_changed_is_not_proven(database: Database, sealed: list[str]) -> None:
    with database.write() as connection:
        changes = update(usage_records).where(usage_records.c.id == sealed[3]).values(charge_nanousd=1)
        connection.execute(changes)

    with pytest.raises(HouseError, match="is not the one that was sealed"):
        proof_of(database, sealed[3])


def test_a_record_under_a_seal_that_was_changed_is_not_proven(database: Database, sealed: list[str]) -> None:
    with database.write() as connection:
        connection.execute(update(seals).values(root="0" * 64))

    with pytest.raises(HouseError, match="not the one that was sealed"):
        proof_of(database, sealed[0])


@pytest.mark.parametrize("sealed_first", [True, False], ids=["sealed, then erased", "erased, then sealed"])
def test_an_erased_row_keeps_its_leaf_and_proves_its_place(database: Database, sealed_first: bool) -> None:
    """What it said is gone; its hash, its leaf and every other row's proof are as they were."""
    others, erased = add(database, 1, 5), add(database, 6, 6, customer="cus_ada", conversation="trip", end_user="ada")
    sealer = Sealer(database, lambda: TIME)
    before = Sealer(database, lambda: TIME)
    if sealed_first:
        sealer.turn()
    erase_records(database, "cus_ada", b"s" * 32, TIME)
    if not sealed_first:
        before.turn()
    add(database, 7, 7)
    sealer.turn(all_of_it=True)

    proof = proven(database, erased[0])

    assert proof["erased"] is True
    assert proof["record"]["end_user"] != "ada"
    assert checked(proof).returncode == 0
    assert checked(changed(proof, "leaf", to="0" * 64)).returncode != 0
    assert "erased" not in proven(database, others[0])
    assert all(checked(proven(database, one)).returncode == 0 for one in others)
    found = verify_chain(database, published=Published(list(seals_in_order(database))))
    assert (found.bad, found.erased) == (None, 1)


def test_the_leaf_of_a_row_is_the_same_whether_it_is_erased_or_not(database: Database) -> None:
    [record_id] = add(database, 1, 1, customer="cus_ada", end_user="ada")
    Sealer(database, lambda: TIME).turn()
    before = proven(database, record_id)

    erase_records(database, "cus_ada", b"s" * 32, TIME)

    after = proven(database, record_id)
    assert (after["leaf"], after["path"], after["seal"]) == (before["leaf"], before["path"], before["seal"])
    assert after["record"]["hash"] == before["record"]["hash"]
