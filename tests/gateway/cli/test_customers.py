"""``tokencap customers add`` creates what a file says, once, and hands out the new keys where only their owner reads."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.cli.commands import tokencap
from tests.loop.rig import Rig, rig

CSV = f"""name,tier,external_id,period_tokens_max,key_name,key_sha256,key_prefix
Acme,open,crm-1,1000,production,,
Beta,open,crm-2,,,{sha256(b"sk-live-4f1b9c77d2e0a853").hexdigest()},sk-live-4f1b
Gamma,,crm-3,,,,
"""


@pytest.fixture
def gateway(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path) as running:
        running.tier("open")
        yield running


def add(directory: Path, gateway: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    token = gateway.admin.headers["authorization"].removeprefix("Bearer ")
    return tokencap(directory, "customers", "add", *words, url=gateway.url, admin_token=token)


def customers(gateway: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gateway.admin.get("/admin/customers").json()["data"]
    return found


def test_a_csv_becomes_customers_with_keys_that_work(gateway: Rig, tmp_path: Path) -> None:
    file, keys = tmp_path / "customers.csv", tmp_path / "keys.jsonl"
    file.write_text(CSV)
    ran = add(tmp_path, gateway, str(file), "--out", str(keys))

    assert ran.returncode == 0, ran.stderr
    assert "3 customers, 2 keys." in ran.stderr
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in keys.read_text().splitlines()]
    assert [line["external_id"] for line in lines] == ["crm-1", "crm-2", "crm-3"]
    assert [[key["key"] is not None for key in line["keys"]] for line in lines] == [[True], [False], []]
    for key, limit in ((lines[0]["keys"][0]["key"], 1_000), ("sk-live-4f1b9c77d2e0a853", None)):
        account = httpx.get(f"{gateway.url}/v1/account", headers={"authorization": f"Bearer {key}"})
        assert account.json()["period"]["tokens_max"] == limit


def test_the_same_file_again_creates_nothing_twice(gateway: Rig, tmp_path: Path) -> None:
    file = tmp_path / "customers.jsonl"
    file.write_text('{"name": "Acme", "keys": [{}]}\n\n{"name": "Beta"}\n')
    first, again = add(tmp_path, gateway, str(file)), add(tmp_path, gateway, str(file))

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert {one["name"] for one in customers(gateway)} == {"Acme", "Beta"}
    assert len(customers(gateway)) == 2
    assert json.loads(again.stdout.splitlines()[0])["keys"][0]["key"] is None


WRONG = {
    "a column nobody knows": ("x.csv", "name,colour\nAcme,red\n", "There is no column 'colour'", 2),
    "a limit that is none": ("x.csv", "name,period_tokens_max\nAcme,many\n", "Line 2: period_tokens_max", 2),
    "a line that is no JSON": ("x.jsonl", '{"name": "A"}\nno\n', "Line 2 is not JSON", 2),
    "a line that is no object": ("x.jsonl", "[]\n", "Line 1 is no JSON object", 2),
    "a tier that is not sold": ("x.jsonl", '{"name": "A"}\n{"name": "B", "tier": "gold"}\n', "customers.1", 1),
    "a field that is not taken": ("x.jsonl", '{"name": "A", "colour": "red"}\n', "colour", 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_sentence_and_nothing_is_created(gateway: Rig, tmp_path: Path, name: str) -> None:
    filename, text, said, code = WRONG[name]
    file = tmp_path / filename
    file.write_text(text)
    ran = add(tmp_path, gateway, str(file))

    assert ran.returncode == code
    assert said in ran.stderr
    assert len([line for line in ran.stderr.splitlines() if said in line]) == 1
    assert customers(gateway) == []
