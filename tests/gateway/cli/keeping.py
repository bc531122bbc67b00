"""A ledger for tests that has records and a menu in force."""

from __future__ import annotations

from typing import Any

from gateway.catalog import menu_rows
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from tests.pricing.estimate.talking import NOON


def kept(url: str, records: list[dict[str, Any]], menu: dict[str, Any]) -> None:
    """Put records into a ledger whose menu is in force."""
    database = Database(url)
    with database.write() as connection:
        added = menu_rows.add_menu(connection, menu, source="manual", created=NOON)
        menu_rows.publish(connection, added, now_ms=NOON)
    append(database, records)
    database.close()
