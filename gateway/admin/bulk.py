"""The route that makes many customers at once, with their keys: new ones, or those that they have from elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import Connection

from gateway.admin import menus_store
from gateway.admin.customer_shapes import CustomerShown, NewCustomer
from gateway.admin.customers import Customers
from gateway.admin.given import Given
from gateway.admin.idempotency import Keep, Post, Replies
from gateway.admin.key_rows import OWN
from gateway.admin.keys import KeyMade, Keys, NewKey
from gateway.admin.problems import AlreadyExists, Invalid, saved_only
from gateway.admin.routes import Routes
from gateway.admin.services import AdminServices
from gateway.admin.sweep import AT_ONCE, project_customers, project_keys
from gateway.holds.terms import Timeline

MOST = 1000
"""Customers of one request."""

KEYS_MOST = 100

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Beginning = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,12}$")]


class BulkKey(NewKey):
    """A key to be: a new one, or one that was made elsewhere, by its SHA-256."""

    sha256: Sha256 | None = Field(
        default=None,
        description="SHA-256 of a key that the customer has already, 16 to 256 printable characters without spaces; "
        "lower-case hexadecimal. Left out, a new key is made.",
    )
    prefix: Beginning | None = Field(
        default=None, description="How that key begins, to tell it by; not `tc-`.", examples=["sk-a1b2"]
    )

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> BulkKey:
        if (self.sha256 is None) != (self.prefix is None):
            raise ValueError("sha256 and prefix come together.")
        if self.prefix is not None and self.prefix.startswith(OWN):
            raise ValueError(f"Keys that begin with {OWN} are this gateway's to make.")
        return self


class BulkCustomer(NewCustomer):
    """A customer to be, with its keys."""

    keys: list[BulkKey] = Field(default_factory=list, max_length=KEYS_MOST)


class BulkCustomers(Given):
    """Customers to be: all of them, or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"customers": [{"name": "Acme", "external_id": "crm-1042", "keys": [{}]}]}]}
    )

    customers: list[BulkCustomer] = Field(min_length=1, max_length=MOST)


class CustomerMade(BaseModel):
    """A new customer, and its keys with the text of those that are new, which is not shown again."""

    customer: CustomerShown
    keys: list[KeyMade]


class CustomersMade(BaseModel):
    """What was made, in the order it was asked for."""

    data: list[CustomerMade]


class Bulk:
    """Many customers in one transaction of the ledger."""

    def __init__(self, services: AdminServices, replies: Replies, customers: Customers, keys: Keys) -> None:
        self._services = services
        self._replies = replies
        self._customers = customers
        self._keys = keys

    def add_to(self, routes: Routes) -> None:
        routes.add("POST", "/customers/bulk", self.create_many, "Create many customers, with keys", 409)

    def create_many(self, body: BulkCustomers, posted: Post) -> CustomersMade:
        """Create up to 1,000 customers with their keys; where one of them cannot be, none is.

        Keys that customers have from elsewhere are taken over by their SHA-256 and go on working as they are.
        """

        def change(keep: Keep) -> CustomersMade:
            with self._services.database.write() as connection:
                menus_store.hold_still(connection)
                timeline = menus_store.read_timeline(connection)
                made = CustomersMade(
                    data=[
                        self._write(connection, place, one, posted.actor, timeline)
                        for place, one in enumerate(body.customers)
                    ]
                )
                keep(connection, _without_keys(made))
            with saved_only(made):
                database, projection = self._services.database, self._services.projection
                project_customers(database, projection, [one.customer.id for one in made.data])
                key_ids = [key.key_id for one in made.data for key in one.keys]
                for first in range(0, len(key_ids), AT_ONCE):
                    project_keys(database, projection, key_ids[first : first + AT_ONCE])
            return made

        return self._replies.once(posted, body, CustomersMade, change)

    def _write(
        self, connection: Connection, place: int, body: BulkCustomer, actor: str, timeline: Timeline
    ) -> CustomerMade:
        try:
            customer = self._customers.write_new(connection, body, actor, timeline)
            return CustomerMade(
                customer=customer, keys=[self._key(connection, customer.id, key, actor) for key in body.keys]
            )
        except AlreadyExists as error:
            raise AlreadyExists(f"customers.{place}: {error.message}") from error
        except Invalid as error:
            raise Invalid.field(f"customers.{place}", error.message, error.code) from error

    def _key(self, connection: Connection, customer_id: str, key: BulkKey, actor: str) -> KeyMade:
        now = self._services.now_ms()
        if key.sha256 is None or key.prefix is None:
            return self._keys.write_new(connection, customer_id, key, actor, now)
        return self._keys.write_imported(connection, customer_id, key, key.sha256, key.prefix, actor, now)


def _without_keys(made: CustomersMade) -> CustomersMade:
    """Return what may be kept: everything but the keys' texts."""
    return CustomersMade(
        data=[
            CustomerMade(customer=one.customer, keys=[key.model_copy(update={"key": None}) for key in one.keys])
            for one in made.data
        ]
    )
