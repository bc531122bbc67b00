"""``tokencap customers add`` creates what a file says, once, and hands out the new keys where only their owner reads."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.customers import AT_ONCE
from tests.gateway.cli.commands import tokencap
from tests.loop.rig import Rig, rig
from tests.servers import short_directory, valkey_in

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


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
def test_rows_that_are_added_to_a_file_are_the_only_new_ones(gateway: Rig, tmp_path: Path, ids: bool) -> None:
    """Wherever they are added, and of rows that say the same as many as there are of them."""
    file, out = tmp_path / "customers.jsonl", tmp_path / "keys.jsonl"
    rows = [{"name": name, "keys": [{}]} for name in ("Acme", "Acme", "Beta")]
    if ids:
        rows = [{**row, "external_id": f"crm-{place}"} for place, row in enumerate(rows)]
    more = [{"name": "Before", "keys": [{}]}, *rows, {"name": "Behind", "keys": [{}]}]
    ran = []
    for lines in (rows, more, more):
        file.write_text("".join(json.dumps(row) + "\n" for row in lines))
        ran.append(add(tmp_path, gateway, str(file), "--out", str(out)))

    assert [one.returncode for one in ran] == [0, 0, 0], ran[1].stderr
    assert "3 created, 0 changed, 0 unchanged." in ran[0].stderr
    assert "2 created, 0 changed, 3 unchanged." in ran[1].stderr
    assert "0 created, 0 changed, 5 unchanged." in ran[2].stderr
    assert sorted(one["name"] for one in customers(gateway)) == ["Acme", "Acme", "Before", "Behind", "Beta"]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 5
    assert all(key["key"] is not None for line in lines for key in line["keys"])


def test_a_file_brings_customers_to_what_it_says(gateway: Rig, tmp_path: Path) -> None:
    file = tmp_path / "customers.csv"
    file.write_text(CSV)
    add(tmp_path, gateway, str(file))
    file.write_text(CSV.replace("1000", "2000").replace("Gamma,,", "Gamma,open,"))

    ran = add(tmp_path, gateway, str(file))

    assert "0 created, 2 changed, 1 unchanged." in ran.stderr
    found = {one["external_id"]: one for one in customers(gateway)}
    assert found["crm-1"]["overrides"] == {"period_tokens_max": 2_000}
    assert found["crm-3"]["tier"] == "open"


def keys_in(file: Path) -> dict[str, list[str | None]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["external_id"]: [key["key"] for key in line["keys"]] for line in lines}


def test_keys_that_were_handed_out_stay_in_their_file(gateway: Rig, tmp_path: Path) -> None:
    """Whatever else is in it, and however often it is named again: nobody is shown them twice."""
    file, out = tmp_path / "customers.csv", tmp_path / "keys.jsonl"
    file.write_text(CSV)
    out.write_text('{"external_id": "before", "keys": [{"key": "tc-kept"}]}')

    ran = [add(tmp_path, gateway, str(file), "--out", str(out)) for _ in range(3)]

    assert [one.returncode for one in ran] == [0, 0, 0], ran[0].stderr
    found = keys_in(out)
    assert found["before"] == ["tc-kept"]
    assert found["crm-1"][0] is not None
    assert len(out.read_text().splitlines()) == 4
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_wrong_row_loses_no_key_that_was_made_before_it(gateway: Rig, tmp_path: Path) -> None:
    file, out = tmp_path / "customers.jsonl", tmp_path / "keys.jsonl"
    rows = [{"name": f"C{number}", "external_id": f"crm-{number}", "keys": [{}]} for number in range(AT_ONCE)]
    wrong, right = (
        {"name": "Last", "external_id": "crm-last", "tier": tier, "keys": [{}]} for tier in ("gold", "open")
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in (*rows, wrong)))
    stopped = add(tmp_path, gateway, str(file), "--out", str(out))
    before = keys_in(out)
    file.write_text("".join(json.dumps(row) + "\n" for row in (*rows, right)))

    again = add(tmp_path, gateway, str(file), "--out", str(out))

    assert (stopped.returncode, again.returncode) == (1, 0), stopped.stderr + again.stderr
    assert "500 customers are created, with 500 keys." in stopped.stderr
    assert len(before) == AT_ONCE
    assert keys_in(out) == {**before, "crm-last": keys_in(out)["crm-last"]}
    assert all(key is not None for keys_made in keys_in(out).values() for key in keys_made)


def test_keys_made_while_redis_is_away_are_handed_out(sqlite_url: str, tmp_path: Path) -> None:
    """They are in the ledger and let in once it is back; there is no other answer that would show them."""
    file, out = tmp_path / "customers.csv", tmp_path / "keys.jsonl"
    file.write_text(CSV.replace(",open,", ",,"))
    with short_directory() as directory, ExitStack() as server:
        redis_url = server.enter_context(valkey_in(directory))
        with rig(redis_url, sqlite_url, tmp_path) as gateway:
            server.close()
            ran = add(tmp_path, gateway, str(file), "--out", str(out))
            keys_made = customers(gateway)

    assert ran.returncode == 3
    assert "3 customers are created, with 2 keys." in ran.stderr
    assert len(keys_made) == 3
    assert keys_in(out)["crm-1"][0] is not None


@pytest.mark.parametrize("was_there", [True, False])
def test_a_run_that_makes_nobody_leaves_the_files_that_were_there(
    gateway: Rig, tmp_path: Path, was_there: bool
) -> None:
    """Its own empty one goes; one of the operator's stays, be it a device."""
    file, out = tmp_path / "customers.csv", tmp_path / "keys.jsonl"
    file.write_text("name,tier\nAcme,gold\n")
    if was_there:
        out.touch()

    ran = add(tmp_path, gateway, str(file), "--out", str(out))

    assert ran.returncode == 1
    assert out.exists() == was_there


def test_a_file_for_keys_that_cannot_be_written_creates_nobody(gateway: Rig, tmp_path: Path) -> None:
    file = tmp_path / "customers.csv"
    file.write_text(CSV)

    ran = add(tmp_path, gateway, str(file), "--out", str(tmp_path / "nowhere" / "keys.jsonl"))

    assert ran.returncode == 2
    assert ran.stderr.endswith("keys.jsonl: No such file or directory.\n")
    assert customers(gateway) == []


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
    filename, text, sentence, code = WRONG[name]
    file = tmp_path / filename
    file.write_text(text)
    ran = add(tmp_path, gateway, str(file))

    assert ran.returncode == code
    assert sentence in ran.stderr
    assert len([line for line in ran.stderr.splitlines() if sentence in line]) == 1
    assert customers(gateway) == []
