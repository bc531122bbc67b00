"""Invoices over REST: drafts of what is open, final ones numbered without a gap and never changed."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from gateway.admin.api.routes import AdminServices
from gateway.billing.invoice_book import InvoiceBook, LatestInvoices
from gateway.billing.invoice_page import page
from gateway.billing.invoices import Issuer, drafted
from gateway.billing.month_folder import write_month
from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.billing.counted import Month, records_counted_in
from gateway.ledger.billing.final_invoices import Terms, finalise
from gateway.ledger.billing_tables import closings, invoices
from gateway.ledger.book.appender import book
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.seals import seal_covering
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.tables import customers
from tests.gateway.admin.operator import Clock, Operator, fields_of
from tests.gateway.ledger.records import customer_row, record

DAY_MS = 86_400_000
OCTOBER_END = 1_793_491_200_000  # 2026-11-01T00:00:00Z
MIDDLE = OCTOBER_END - 15 * DAY_MS
CLOSED = OCTOBER_END + DAY_MS
ISSUER = Issuer(("Example Ltd", "1 <Road>"), ("Reverse charge",), "EX-", "USD")


@pytest.fixture
def clock() -> Clock:
    return Clock(OCTOBER_END - 31 * DAY_MS)


def booked(services: AdminServices, *records: Any) -> None:
    with services.database.write() as connection:
        Watermark(services.redis).rise(book(connection, records))


async def version(operator: Operator) -> str:
    """Publish a tier and return its menu's version."""
    prices = {"price_nanousd": 900, "output_nanousd_per_mtok": 7_000_000}
    await operator.put("/admin/tiers/t2", prices)
    menus = (await operator.get("/admin/menus"))["data"]
    found: str = next(menu["version"] for menu in menus if menu["in_force"])
    return found


def call(number: int, customer: str, menu: str, time: int = MIDDLE, **changes: Any) -> Any:
    """Return a call of 1,000 tokens, charged as the first of its conversation."""
    defaults = {
        "customer": customer,
        "time": time,
        "settled": time + 500,
        "menu_version": menu,
        "charge_nanousd": 7_900,
    }
    return record(number, **{**defaults, "billed_output_tokens": 1_000, "conversation_is_included": None, **changes})


async def test_a_draft_is_what_the_book_has_now(operator: Operator, services: AdminServices) -> None:
    """Under the id that it will keep, with lines that add up; a record more is in it at once."""
    menu = await version(operator)
    customer = await operator.customer(name="Acme", external_id="crm-1", timezone="Asia/Tokyo")
    booked(services, call(1, customer, menu), call(2, customer, menu, charge_nanousd=7_000))
    await operator.post(f"/admin/customers/{customer}/fees", {"amount_nanousd": 50, "reason": "x"})

    draft = await operator.get(f"/admin/invoices/inv_2026-10_{customer}")

    assert (draft["number"], draft["status"], draft["name"], draft["external_id"]) == (None, "draft", "Acme", "crm-1")
    assert draft["period"]["start"] == "2026-09-30T15:00:00.000Z"
    assert draft["period"]["timezone"] == "Asia/Tokyo"
    assert [(one["kind"], one["quantity"], one["unit_nanousd"], one["amount_nanousd"]) for one in draft["lines"]] == [
        *(("conversations", 1, 900, 900), ("output", 2_000, 7_000_000, 14_000), ("fee", 1, 50, 50)),
    ]
    assert draft["total_nanousd"] == 14_950
    assert draft["ledger"] == {"chain": "main", "first_seq": 1, "last_seq": 3, "seal": None}
    assert draft["lines"][1]["first_record"] == "call-000001"
    assert (await operator.get(f"/admin/customers/{customer}/invoices"))["data"] == [draft]
    assert (await operator.get("/admin/invoices?period=2026-10"))["data"] == [draft]


async def test_closing_makes_invoices_final(
    operator: Operator, services: AdminServices, database: Database, clock: Clock
) -> None:
    """Numbered by customer, under the seal of their last record; who has no record has none, and nothing is left open."""
    menu = await version(operator)
    names = sorted([await operator.customer() for _ in range(3)])
    booked(services, call(1, names[0], menu), call(2, names[2], menu))
    clock.ms = CLOSED
    shown = await operator.post("/admin/periods/2026-10/close")
    finals = (await operator.get("/admin/invoices"))["data"]

    assert (shown["state"], shown["customers"], shown["invoices"], shown["total_nanousd"]) == ("closed", 3, 2, 15_800)
    assert [(one["number"], one["customer"], one["status"]) for one in finals] == [
        *(("000001", names[0], "final"), ("000002", names[2], "final")),
    ]
    with database.read() as connection:
        seal = seal_covering(connection, 2)
    assert seal is not None
    assert finals[1]["ledger"]["seal"] == {"seq": seal.seq, "hash": seal.hash}
    assert finals[0]["created"] == "2026-11-02T00:00:00.000Z"


async def test_an_invoice_is_sealed_however_young_the_last_seal_is(
    operator: Operator, services: AdminServices, database: Database, clock: Clock
) -> None:
    """A seal is due after a minute; closing makes one at once."""
    customer = await operator.customer()
    booked(services, call(1, customer, "m1"))
    clock.ms = CLOSED
    Sealer(database, clock).turn()
    booked(services, call(2, customer, "m1"))
    await operator.post("/admin/periods/2026-10/close")

    ledger = (await operator.get(f"/admin/invoices/inv_2026-10_{customer}"))["ledger"]
    with database.read() as connection:
        seal = seal_covering(connection, 2)
    assert seal is not None
    assert (ledger["last_seq"], ledger["seal"]) == (2, {"seq": 2, "hash": seal.hash})


async def test_a_final_invoice_never_changes(operator: Operator, services: AdminServices, clock: Clock) -> None:
    """Neither by what comes later, nor by a change of the customer, nor by closing again; the credit is on the next."""
    menu = await version(operator)
    customer = await operator.customer(name="Acme")
    booked(services, call(1, customer, menu))
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    path = f"/admin/invoices/inv_2026-10_{customer}"
    before = await operator.send("GET", path)

    booked(services, call(2, customer, menu))
    await operator.post(
        f"/admin/customers/{customer}/credits", {"amount_nanousd": 900, "reason": "x", "record": "call-000001"}
    )
    await operator.patch(f"/admin/customers/{customer}", {"timezone": "Asia/Tokyo", "name": "Other"})
    await operator.post("/admin/periods/2026-10/close")
    after, coming = await operator.send("GET", path), await operator.get(f"/admin/invoices/inv_2026-11_{customer}")

    assert after.content == before.content
    assert [(one["kind"], one["amount_nanousd"]) for one in coming["lines"]] == [
        *(("conversations", 900), ("output", 7_000), ("credit", -900)),
    ]


async def test_killed_between_closing_and_its_invoice_it_goes_on(
    operator: Operator, services: AdminServices, database: Database, clock: Clock
) -> None:
    """A month that is closed without its invoice is not called closed; the next run makes it, with the next number."""
    menu = await version(operator)
    customer = await operator.customer()
    booked(services, call(1, customer, menu))
    clock.ms = CLOSED
    with database.write() as connection:
        close(connection, list(months_of(database, "2026-10")), CLOSED)
    between = await operator.get("/admin/periods/2026-10")
    after = await operator.post("/admin/periods/2026-10/close")

    assert (between["state"], between["waiting_for"][0]["why"]) == ("waiting", "Its invoice is not final.")
    assert (after["state"], after["invoices"]) == ("closed", 1)


def test_a_number_is_given_once(database: Database, services: AdminServices) -> None:
    """Of two who make an invoice final at once the second changes nothing."""
    booked(services, call(1, "cus_a", "m1"))
    month = closed_month(database, "cus_a")
    body = drafted(database, month, ISSUER, Terms(database))

    done = [finalise(database, month, body, numbered=ISSUER.numbered, now_ms=5) for _ in range(2)]

    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(invoices)).scalar_one() == 1
        assert connection.execute(select(closings.c.is_invoiced)).scalar_one() is True
    assert done == [True, False]


def closed_month(database: Database, customer: str) -> Any:
    with database.write() as connection:
        connection.execute(insert(customers), [customer_row(customer)])
    with database.write() as connection:
        close(connection, list(months_of(database, "2026-10")), CLOSED)
    return next(months_of(database, "2026-10", customer))


async def test_invoices_add_up_to_the_totals(operator: Operator, services: AdminServices, clock: Clock) -> None:
    """Of every month, whatever came late: the invoices of a month are its totals, and all of them the ledger."""
    menu, draw = await version(operator), random.Random(3)
    names = [await operator.customer(timezone=zone) for zone in ("Asia/Tokyo", "Europe/Berlin", "America/New_York")]
    months = {"2026-10": CLOSED, "2026-11": CLOSED + 10 * DAY_MS}
    number = 0
    for month, now in months.items():
        for _ in range(40):
            number += 1
            time = OCTOBER_END + draw.randrange(-20 * DAY_MS, 9 * DAY_MS)
            changes = {"tier": draw.choice(("t2", "t9")), "charge_nanousd": draw.choice((7_900, 7_000, 0, 123))}
            kind = draw.choice(("usage", "usage", "correction"))
            booked(services, call(number, draw.choice(names), menu, time, kind=kind, **changes))
        clock.ms = now
        await operator.post(f"/admin/periods/{month}/close")
    found = {}
    for month in months:
        invoices_of = (await operator.get(f"/admin/invoices?period={month}"))["data"]
        totals = (await operator.get(f"/admin/totals?by=customer&period={month}"))["data"]
        assert {one["customer"]: one["total_nanousd"] for one in invoices_of} == {
            one["customer"]: one["charge_nanousd"] for one in totals
        }
        assert all(sum(line["amount_nanousd"] for line in one["lines"]) == one["total_nanousd"] for one in invoices_of)
        assert sum(one["records"] for one in invoices_of) == len(
            list(records_counted_in(services.database, Span(), Month(services.database, month)))
        )
        found[month] = sum(one["total_nanousd"] for one in invoices_of)
    everything = (await operator.get("/admin/totals?by=kind"))["data"]
    assert sum(found.values()) == sum(one["charge_nanousd"] for one in everything)


async def test_a_final_invoice_names_the_seal_of_its_last_record(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    customer = await operator.customer()
    for number in (1, 2):
        booked(services, call(number, customer, "m1"))
        Sealer(services.database, clock).turn(all_of_it=True)
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")

    ledger = (await operator.get(f"/admin/invoices/inv_2026-10_{customer}"))["ledger"]

    assert (ledger["first_seq"], ledger["last_seq"], ledger["seal"]["seq"]) == (1, 2, 2)


async def test_a_month_that_a_new_zone_names_again_has_one_invoice(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    """October is over and closed in Kiribati; in Samoa, where the customer is now, it goes on: that is November's draft."""
    customer = await operator.customer(timezone="Pacific/Kiritimati")
    booked(services, call(1, customer, "m1"))
    clock.ms = OCTOBER_END - 13 * 3_600_000
    await operator.post("/admin/periods/2026-10/close")
    await operator.patch(f"/admin/customers/{customer}", {"timezone": "Pacific/Pago_Pago"})
    booked(services, call(2, customer, "m1", clock.ms))

    found = (await operator.get(f"/admin/customers/{customer}/invoices"))["data"]

    assert [(one["id"], one["status"], one["records"]) for one in found] == [
        (f"inv_2026-10_{customer}", "final", 1),
        (f"inv_2026-11_{customer}", "draft", 1),
    ]


async def test_lists_come_page_by_page(operator: Operator, services: AdminServices, clock: Clock) -> None:
    menu = await version(operator)
    names = sorted([await operator.customer() for _ in range(5)])
    booked(services, *(call(number, name, menu) for number, name in enumerate(names)))
    drafts = await _all(operator, "period=2026-10&status=draft")
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    finals = await _all(operator, "")

    assert [one["customer"] for one in drafts] == [one["customer"] for one in finals] == names
    assert await _all(operator, "period=2026-10&status=final") == finals
    assert await _all(operator, "period=2026-10&status=draft") == []
    assert await _all(operator, f"customer={names[3]}") == finals[3:4]
    assert await operator.get("/admin/invoices?limit=5") == {"data": finals, "next_cursor": None}


async def _all(operator: Operator, query: str) -> list[Any]:
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page_of = await operator.get(f"/admin/invoices?limit=2&{query}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page_of["data"]) <= 2
        found, cursor = found + page_of["data"], page_of["next_cursor"]
    return found


async def test_what_is_no_invoice_is_refused(operator: Operator, services: AdminServices) -> None:
    customer, idle = await operator.customer(), await operator.customer()
    booked(services, call(1, customer, "m1"))
    assert (await operator.get(f"/admin/invoices/inv_2026-10_{customer}"))["customer"] == customer
    for name in ("inv_2026-10_cus_nobody", f"inv_2026-10_{idle}", "inv_2026-13_x", "x", f"2026-10_{customer}"):
        assert (await operator.refused("GET", f"/admin/invoices/{name}"))["status"] == 404
    assert (await operator.refused("GET", "/admin/customers/cus_nobody/invoices"))["status"] == 404
    assert fields_of(await operator.refused("GET", "/admin/invoices?status=draft")) == {"period"}


class Read(HTMLParser):
    """Collects tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_an_invoice_can_be_printed(operator: Operator, services: AdminServices) -> None:
    """As a page that loads and runs nothing, with whatever was typed as text."""
    menu = await version(operator)
    customer = await operator.customer(name="<script>alert(1)</script> & Sons")
    booked(services, call(1, customer, menu))
    path = f"/admin/invoices/inv_2026-10_{customer}"

    answer = await operator.send("GET", path, accept="text/html,application/json;q=0.5")

    read = Read(answer.text)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "script" not in read.tags
    assert "<script>alert(1)</script> & Sons" in read.text
    assert "0.0000079 USD" in read.text
    assert (await operator.send("GET", path, accept="*/*")).headers["content-type"] == "application/json"
    invoice = (await operator.send("GET", path)).json()
    assert "1 <Road>" in Read(page({**invoice, "issuer": {"address": ["1 <Road>"], "tax_lines": ["VAT"]}})).text
    assert "Credit note" in page({**invoice, "total_nanousd": -1})


async def test_erasing_a_customer_takes_its_names_off(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    menu = await version(operator)
    customer = await operator.customer(name="Acme", external_id="crm-1")
    booked(services, call(1, customer, menu))
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    path = f"/admin/invoices/inv_2026-10_{customer}"
    before = await operator.get(path)

    await operator.delete(f"/admin/customers/{customer}?erase=true")

    assert (before["name"], before["external_id"]) == ("Acme", "crm-1")
    assert await operator.get(path) == {**before, "name": "", "external_id": None}


async def test_a_closed_month_is_a_folder(
    operator: Operator, services: AdminServices, clock: Clock, tmp_path: Path
) -> None:
    """The same bytes each time; a file that was harmed, or is missing, is written anew, others are left alone."""
    menu = await version(operator)
    names = sorted([await operator.customer() for _ in range(2)])
    booked(services, *(call(number, name, menu) for number, name in enumerate(names)))
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    book_of = InvoiceBook(services.database, ISSUER, clock)
    first = write_month(tmp_path, services.database, book_of, "2026-10")
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    assert {(tmp_path / one["file"]).stat().st_mode & 0o777 for one in first["files"]} == {0o600}
    harmed = tmp_path / "totals.csv"
    harmed.write_text("half")
    (tmp_path / "manifest.json").unlink()

    again = write_month(tmp_path, services.database, book_of, "2026-10")

    assert again == first
    assert (first["invoices"], first["total_nanousd"], len(first["files"])) == (2, 15_800, 5)
    assert {path: path.read_bytes() for path in files} == {path: content for path, (content, _) in files.items()}
    kept = [path for path, (_, at) in files.items() if path.stat().st_mtime_ns == at]
    assert len(kept) == len(files) - 2
    assert harmed.read_text().splitlines()[1].startswith(f"{names[0]},1,1,")


def test_a_customers_own_view_is_made_once_a_minute(database: Database, services: AdminServices) -> None:
    """Whoever asks all the time keeps nobody busy."""
    booked(services, call(1, "cus_a", "m1"))
    closed_month(database, "cus_a")
    seconds = [1_000.0]
    latest = LatestInvoices(InvoiceBook(database, ISSUER, lambda: CLOSED), lambda: seconds[0], lambda _: None)
    before = latest.of("cus_a")
    booked(services, call(2, "cus_a", "m1", OCTOBER_END))
    seconds[0] = 1_059.0
    meanwhile = latest.of("cus_a")
    seconds[0] = 1_060.0

    assert meanwhile is before
    anew = latest.of("cus_a")
    assert [one["id"] for one in anew] == ["inv_2026-11_cus_a"]
    seconds[0] = 1_119.0
    assert latest.of("cus_a") is anew
