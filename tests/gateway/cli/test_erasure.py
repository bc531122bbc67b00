"""After an erasure no file of the data directory has a byte of what was erased."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.gateway.cli.commands import serving, tokencap
from tests.loop.rig import Sold

NAMES = (b"Ada Lovelace", b"ada-7@example.org", b"ada-key", b"ada-trip", b"ada-user", b"ada-call")
ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long?"}], "user": "ada-user-1"}
TOLD = {"x-conversation-id": "ada-trip-1", "x-request-id": "ada-call-1"}


def found_in(directory: Path) -> set[tuple[str, bytes]]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {(path.name, name) for path in files for name in NAMES if name in path.read_bytes()}


def test_no_file_has_a_byte_of_what_was_erased(directory: Path) -> None:
    """Not the database, nor its write-ahead log, nor Valkey's log; and the books hold."""
    with serving(directory) as gateway:
        rig = gateway.rig(gateway.admin_token())
        rig.tier("only", conversation_tokens_max=50, price_nanousd=1_000, end_user_period_tokens_max=1_000)
        ada = rig.admin.post(
            "/admin/customers", json={"name": "Ada Lovelace", "external_id": "ada-7@example.org", "tier": "only"}
        ).json()["id"]
        key = rig.admin.post(f"/admin/customers/{ada}/keys", json={"name": "ada-key"}).json()["key"]
        others = rig.customer("only")
        for who in (Sold(ada, key), others):
            for again in ("1", "2"):
                headers = {**who.headers, **(TOLD if who.id == ada else {}), "idempotency-key": f"once-{again}"}
                body = ASKED if who.id == ada else {**ASKED, "user": "bob"}
                answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
                assert answer.status_code in (200, 429), answer.text
        rig.usage()
        assert found_in(directory)

        erased = rig.admin.delete(f"/admin/customers/{ada}?erase=true", timeout=120)

        assert erased.status_code == 204, erased.text
        assert found_in(directory) == set()
        assert {record["end_user"] for record in rig.usage(others)} == {"bob"}
    assert found_in(directory) == set()
    verified = tokencap(directory, "ledger", "verify")
    assert verified.returncode == 0
    assert "every one as it was written, but for" in verified.stdout
