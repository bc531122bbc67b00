"""What one transaction adds to customers and keys, written together: of many at once each costs little."""

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
    """Rows to be. ``actor`` is who adds them, ``now_ms`` when."""

    actor: str
    now_ms: int
    customers: list[CustomerRow] = field(default_factory=list)
    changed: list[CustomerRow] = field(default_factory=list)
    """Customers that are there and locked, as they are to be."""
    keys: list[tuple[KeyRow, str]] = field(default_factory=list)
    """Keys with their digests."""
    audited: list[Audited] = field(default_factory=list)

    def write(self, connection: Connection) -> None:
        """Write all of them.

        Raises:
            AlreadyExists: another customer has an external_id of theirs, or there is a key of one of the digests.
        """
        customer_rows.add_all(connection, self.customers)
        for row in self.changed:
            customer_rows.store(connection, row)
        api_key_rows.add_all(connection, self.keys)
        audit_rows.record_all(connection, self.audited)


def menus_in(connection: Connection) -> MenuOf:
    """Return what reads a menu, once each."""

    @cache
    def menu_of(version: str) -> Menu:
        return menu_rows.read_menu(connection, version)

    return menu_of
