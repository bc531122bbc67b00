"""``tokencap customers credit``, ``fee`` and ``prepaid`` put an amount on a customer's bill, once for each key."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.cli.commands import tokencap
from tests.loop.rig import Rig, rig


@pytest.fixture
def gateway(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path) as running:
        yield running


def run(directory: Path, gateway: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    token = gateway.admin.headers["authorization"].removeprefix("Bearer ")
    return tokencap(directory, "customers", *words, url=gateway.url, admin_token=token)


def test_a_fee_and_a_credit_for_it_are_records_of_the_ledger(gateway: Rig, tmp_path: Path) -> None:
    """Each is printed as it stands there; a repetition with the same key books nothing more."""
    customer = gateway.admin.post("/admin/customers", json={"name": "Acme"}).json()["id"]
    fee = run(tmp_path, gateway, "fee", customer, "--amount-nanousd", "900", "--reason", "Set-up")
    record = json.loads(fee.stdout)
    words = ("--amount-nanousd", "900", "--reason", "Too much", "--record", record["id"], "--idempotency-key", "once")

    credited = [run(tmp_path, gateway, "credit", customer, *words) for _ in range(2)]

    assert [ran.returncode for ran in (fee, *credited)] == [0, 0, 0], credited
    assert credited[0].stdout == credited[1].stdout
    booked = gateway.admin.get("/admin/usage").json()["data"]
    assert booked == [record, json.loads(credited[0].stdout)]
    assert [row["charge_nanousd"] for row in booked] == [900, -900]


def test_prepaid_credit_is_a_record_of_the_ledger(gateway: Rig, tmp_path: Path) -> None:
    customer = gateway.admin.post("/admin/customers", json={"name": "Acme"}).json()["id"]

    paid = run(tmp_path, gateway, "prepaid", customer, "--amount-nanousd", "900", "--reason", "Transfer")

    assert paid.returncode == 0, paid.stderr
    assert gateway.admin.get("/admin/usage").json()["data"] == [json.loads(paid.stdout)]
    assert gateway.admin.get(f"/admin/customers/{customer}/prepaid").json()["left_nanousd"] == 900


def test_a_refusal_is_one_sentence(gateway: Rig, tmp_path: Path) -> None:
    """Exit 1 where the answer is no."""
    refused = run(tmp_path, gateway, "fee", "cus_nobody", "--amount-nanousd", "1", "--reason", "x")

    assert refused.returncode == 1
    assert refused.stderr == "There is no customer 'cus_nobody'.\n"
