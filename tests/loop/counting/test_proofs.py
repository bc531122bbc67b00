"""A customer proves its own record with the gateway's proof, and can read the seals to check the proof against."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx

from tests.house.files import ROOT
from tests.loop.rig import Rig, Sold
from tests.waiting import until

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}
SCRIPT = str(ROOT / "docs" / "verify_proof.py")


def called(loop: Rig, who: Sold) -> str:
    answer = httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=who.headers)
    assert answer.is_success, answer.text
    return answer.headers["x-request-id"]


def get(loop: Rig, who: Sold, path: str) -> httpx.Response:
    return httpx.get(f"{loop.url}{path}", headers=who.headers)


def error(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_customer_proves_its_record(loop: Rig) -> None:
    loop.tier("only", conversation_tokens_max=50)
    ada, bob = loop.customer("only"), loop.customer("only")
    record_id = called(loop, ada)
    path = f"/v1/account/usage/{record_id}/proof"
    until(lambda: get(loop, ada, path).is_success)

    proof, seals = get(loop, ada, path).json(), get(loop, bob, "/v1/ledger/seals?limit=1000").json()

    assert proof["record"] == loop.usage(ada)[0]
    assert proof["seal"] in seals["data"]
    command = [sys.executable, "-I", "-S", SCRIPT, proof["seal"]["hash"]]
    checked = subprocess.run(command, input=json.dumps(proof), capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_customer_has_no_proof_of_anothers_record_and_none_before_the_seal(loop: Rig) -> None:
    """Another customer's record is as unknown as a record that does not exist."""
    loop.tier("only", conversation_tokens_max=50)
    ada, bob = loop.customer("only"), loop.customer("only")
    first = called(loop, ada)
    until(lambda: get(loop, ada, f"/v1/account/usage/{first}/proof").is_success)
    late = called(loop, ada)  # the next seal is made a minute after the last one

    waits = get(loop, ada, f"/v1/account/usage/{late}/proof")

    assert error(waits) == (409, "not_sealed_yet")
    assert waits.headers["retry-after"] == "60"
    for who, record_id in ((bob, first), (ada, "req_none"), (ada, "")):
        assert error(get(loop, who, f"/v1/account/usage/{record_id}/proof")) == (404, "not_found")
    for path in (f"/v1/account/usage/{first}/proof", "/v1/ledger/seals"):
        assert error(httpx.get(f"{loop.url}{path}")) == (401, "invalid_api_key")
        assert error(get(loop, ada, f"{path}?form=pdf")) == (422, "unknown_parameter")
    assert error(get(loop, ada, "/v1/ledger/seals?limit=1001"))[0] == 400
