"""Collects the customers and keys that a transaction adds or changes, and writes them together: cheap for many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from sqlalchemy import Connection

from gateway.catalog import api_key_rows, audit_rows, customer_rows, menu_rows
from gateway.catalog.api_key_rows import KeyRow
from gateway.catalog.audit_rows import Audited
from gateway.catalog.customer_rows import CustomerRow
from pricing.menus.menu import Menu

MenuOf = Callable[[str], Menu]


@dataclass(slots=True)
class Additions:
    """Rows to write; ``actor`` adds them at ``now_ms``."""

    actor: str
    now_ms: int
    customers: list[CustomerRow] = field(default_factory=list)
    changed: list[CustomerRow] = field(default_factory=list)
    """Existing customers, locked, in their changed state."""
    keys: list[tuple[KeyRow, str]] = field(default_factory=list)
    """Keys with their digests."""
    audited: list[Audited] = field(default_factory=list)

    def write(self, connection: Connection) -> None:
        """Write all rows.

        Raises:
            AlreadyExists: another customer has one of the external_ids, or another key one of the digests.
        """
        customer_rows.add_all(connection, self.customers)
        for row in self.changed:
            customer_rows.store(connection, row)
        api_key_rows.add_all(connection, self.keys)
        audit_rows.record_all(connection, self.audited)


def menus_in(connection: Connection) -> MenuOf:
    """Return a function that reads menus, each menu once."""

    @cache
    def menu_of(version: str) -> Menu:
        return menu_rows.read_menu(connection, version)

    return menu_of
