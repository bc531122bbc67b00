"""``tokencap close`` closes a month with one command: again it changes nothing, killed anywhere it goes on."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from gateway.holds.store.clients import connect
from gateway.ledger.billing.closings import bounds_of
from gateway.ledger.billing_tables import invoices
from gateway.ledger.book.appender import book
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.tables import customers, menus
from tests.gateway.cli.commands import COMMAND, environment, tokencap
from tests.gateway.ledger.records import ZONES, customer_row, record
from tests.waiting import until

MENU = {
    **{"version": "m1", "created": "2026-01-01T00:00:00Z", "currency": "USD", "bill": "conversation"},
    "tiers": [{"name": "t2", "price_nanousd": 900, "output_nanousd_per_mtok": 7_000_000}],
}


@pytest.fixture
def settings(valkey_url: str, sqlite_url: str) -> dict[str, Any]:
    """Thirty customers in thirty zones, each with calls at both ends of its October, which has an hour more in Europe."""
    with closing(Database(sqlite_url)) as database, connect(valkey_url) as client:
        database.migrate()
        row = {"version": "m1", "source": "manual", "created": 0, "body": json.dumps(MENU)}
        with database.write() as connection:
            connection.execute(insert(menus), [row])
            named = enumerate(ZONES)
            connection.execute(insert(customers), [customer_row(f"cus_{n:02d}", timezone=zone) for n, zone in named])
        records = list(_calls())
        with database.write() as connection:
            Watermark(client).rise(book(connection, records))
    return {"redis_url": valkey_url, "database_url": sqlite_url}


def _calls() -> Iterator[Any]:
    number = 0
    for place, zone in enumerate(ZONES):
        start, end = bounds_of("2026-10", zone)
        for time in (start, start + 5, end - 1, end):
            number += 1
            changes = {"customer": f"cus_{place:02d}", "time": time, "settled": time + 900, "charge_nanousd": 7_900}
            yield record(number, **changes, billed_output_tokens=1_000, conversation_is_included=None)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_month_of_thirty_customers_closes_with_one_command(
    directory: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Each in its own zone; run again it changes nothing, also once more has come."""
    words = ("close", "2026-10", "--out", str(tmp_path / "october"))
    first = tokencap(directory, *words, **settings)
    files = bytes_of(tmp_path / "october")
    with closing(Database(settings["database_url"])) as database, connect(settings["redis_url"]) as client:
        late = record(900, customer="cus_16", time=bounds_of("2026-10", "UTC")[0] + 9)
        with database.write() as connection:
            Watermark(client).rise(book(connection, [late]))
    again = tokencap(directory, *words, **settings)

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert first.stdout == again.stdout
    assert first.stdout.startswith("2026-10 is closed: 30 invoices, 711000 nano-units, in ")
    assert bytes_of(tmp_path / "october") == files
    manifest = json.loads(files.pop("manifest.json"))
    assert {one["file"]: one["sha256"] for one in manifest["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    found = [json.loads(content) for name, content in files.items() if name.endswith(".json")]
    assert sorted(one["number"] for one in found) == [f"{number:06d}" for number in range(1, 31)]
    assert {one["period"]["timezone"] for one in found} == set(ZONES)
    assert {one["records"] for one in found} == {3}


@pytest.mark.parametrize("after", [0, 1, 13, 29])
def test_killed_anywhere_it_can_be_run_again(
    directory: Path, settings: dict[str, Any], tmp_path: Path, after: int
) -> None:
    """Every customer has one invoice, numbered without a gap, and the folder is whole."""
    words = ("close", "2026-10", "--out", str(tmp_path / "october"))
    with closing(Database(settings["database_url"])) as database:
        process = subprocess.Popen(
            [*COMMAND, *words], env=environment(directory, **settings), stdout=subprocess.DEVNULL
        )
        until(lambda: _count(database) > after or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.wait()

        done = tokencap(directory, *words, **settings)

        assert done.returncode == 0, done.stderr
        with database.read() as connection:
            numbers = connection.execute(select(invoices.c.number).order_by(invoices.c.number)).scalars().all()
        assert numbers == list(range(1, 31))
        assert verify_chain(database).is_sound
    assert len(bytes_of(tmp_path / "october")) == 62


def _count(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(invoices)).scalar_one()


def test_what_is_open_is_said_with_the_reason(directory: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """A month that has not ended for everybody: exit 1 at once, and no folder."""
    month = datetime.now(UTC).strftime("%Y-%m")
    out = tmp_path / "now"

    refused = tokencap(directory, "close", month, "--out", str(out), **settings)

    assert refused.returncode == 1
    assert refused.stdout == ""
    assert f"{month} is " in refused.stderr
    assert "cus_29: It ends at " in refused.stderr
    assert not out.exists()


def test_a_month_is_named_as_one(directory: Path, settings: dict[str, Any]) -> None:
    refused = tokencap(directory, "close", "October", **settings)

    assert (refused.returncode, refused.stderr) == (2, "A month is written as 2026-10.\n")
