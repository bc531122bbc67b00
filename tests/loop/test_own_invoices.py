"""A customer reads its own invoices and its own prepaid credit, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path) as running:
        running.tier("small", price_nanousd=900, output_nanousd_per_mtok=7_000_000)
        yield running


def get(loop: Rig, who: Sold, path: str) -> httpx.Response:
    return httpx.get(f"{loop.url}/v1/account/invoices{path}", headers=who.headers, timeout=60)


def test_a_customer_reads_its_own_invoices(loop: Rig) -> None:
    """The draft of the open month has the charges of the customer's calls; another customer's invoice is not found."""
    acme, other = loop.customer("small"), loop.customer("small")
    body: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}
    for _ in range(2):
        httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=acme.headers, timeout=60).raise_for_status()
    charged = sum(record["charge_nanousd"] for record in loop.usage(acme))

    own = get(loop, acme, "").json()

    assert [(one["status"], one["total_nanousd"], one["records"]) for one in own["data"]] == [("draft", charged, 2)]
    assert {line["kind"] for line in own["data"][0]["lines"]} == {"conversations", "output"}
    path = f"/{own['data'][0]['id']}"
    assert get(loop, acme, path).json() == own["data"][0]
    assert (get(loop, other, path).status_code, get(loop, other, "").json()["data"]) == (404, [])
    assert httpx.get(f"{loop.url}/v1/account/invoices").status_code == 401


def test_a_customer_reads_what_is_left_of_its_prepaid_credit(loop: Rig) -> None:
    """Calls draw on the credit; a customer without credit has nothing left."""
    acme, other = loop.customer("small"), loop.customer("small")
    paid = {"amount_nanousd": 10**9, "reason": "Transfer"}
    loop.admin.post(f"/admin/customers/{acme.id}/prepaid", json=paid).raise_for_status()
    body: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}
    httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=acme.headers, timeout=60).raise_for_status()
    charged = sum(record["charge_nanousd"] for record in loop.usage(acme))

    own, none = (httpx.get(f"{loop.url}/v1/account/prepaid", headers=who.headers, timeout=60) for who in (acme, other))

    assert charged > 0
    assert own.json() == {"currency": "USD", "left_nanousd": 10**9 - charged}
    assert none.json() == {"currency": "USD", "left_nanousd": 0}
    assert get(loop, acme, "").json()["data"][0]["prepaid"]["drawn_nanousd"] == charged
    assert loop.account(acme)["spend"]["used_nanousd"] == charged
    assert httpx.get(f"{loop.url}/v1/account/prepaid").status_code == 401
