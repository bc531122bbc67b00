"""A customer reads its own credit notes, page by page and by id, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from gateway.billing.invoices import finalised
from gateway.clock import now_ms
from gateway.holds.store.clients import connect
from gateway.ledger.billing.closings import close, month_at, month_before, months_of
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.appender import book
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from tests.gateway.admin.billing.test_invoices import ISSUER, call
from tests.loop.rig import Rig, Sold, rig


@pytest.fixture
def loop(valkey_url: str, ledger_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, ledger_url, tmp_path) as running:
        running.tier("small", price_nanousd=900)
        yield running


def get(loop: Rig, who: Sold, path: str = "") -> httpx.Response:
    return httpx.get(f"{loop.url}/v1/account/credit-notes{path}", headers=who.headers, timeout=60)


def invoiced(loop: Rig, number: int) -> tuple[Sold, str]:
    """Return a customer whose last month is invoiced, and the id of the invoice."""
    who, now = loop.customer("small"), now_ms()
    month = month_before(month_at(now, "UTC"))
    with closing(Database(loop.settings.ledger_url)) as database, connect(loop.settings.redis_url) as client:
        [before] = months_of(database, month, who.id)
        record = call(number, who.id, "m1", time=before.start)
        with database.write() as connection:
            Watermark(client).rise(book(connection, [record]))
            close(connection, [before], now)
        while Sealer(database, now_ms).turn(all_of_it=True):
            pass
        [closed] = months_of(database, month, who.id)
        finalised(database, closed, ISSUER, Terms(database), now_ms)
    return who, f"inv_{month}_{who.id}"


def credited(loop: Rig, who: Sold, invoice: str, amount: int) -> str:
    """Credit a part of an invoice; return the id of the note."""
    body = {"amount_nanousd": amount, "reason": "Outage", "invoice": invoice}
    answer = loop.admin.post(f"/admin/customers/{who.id}/credits", json=body)
    assert answer.status_code == 201, answer.text
    note: str = answer.json()["id"]
    return note


def test_a_customer_reads_its_own_credit_notes(loop: Rig) -> None:
    """The notes are the same as the operator's, page by page, without those of another customer."""
    (acme, first), (other, second) = invoiced(loop, 1), invoiced(loop, 2)
    ids = [credited(loop, acme, first, 900), credited(loop, other, second, 70), credited(loop, acme, first, 5)]
    own = [ids[0], ids[2]]

    notes = get(loop, acme).json()

    assert ([one["id"] for one in notes["data"]], notes["next_cursor"]) == (own, None)
    assert notes["data"] == loop.admin.get(f"/admin/credit-notes?customer={acme.id}").json()["data"]
    page = get(loop, acme, "?limit=1").json()
    assert [one["id"] for one in page["data"]] == own[:1]
    rest = get(loop, acme, f"?limit=1&cursor={page['next_cursor']}").json()
    assert ([one["id"] for one in rest["data"]], rest["next_cursor"]) == (own[1:], None)
    assert get(loop, acme, f"/{ids[0]}").json() == notes["data"][0]
    assert [get(loop, other, f"/{ids[0]}").status_code, get(loop, acme, "/crd_none").status_code] == [404, 404]
    assert get(loop, acme, "?cursor=none").json()["error"]["param"] == "cursor"
    assert get(loop, acme, "?customer=x").json()["error"]["code"] == "unknown_parameter"
    assert httpx.get(f"{loop.url}/v1/account/credit-notes").status_code == 401


def test_without_a_credit_there_is_no_note(loop: Rig) -> None:
    who, _ = invoiced(loop, 1)

    assert get(loop, who).json() == {"data": [], "next_cursor": None}
