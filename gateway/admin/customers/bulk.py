"""The route that creates many customers at once, with keys that are new or were made elsewhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Keep, Post, Replies
from gateway.admin.api.inputs import Input, OneLine
from gateway.admin.api.problem_json import saved_only
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.customers.api_keys import KeyMade, Keys, NewKey, shown
from gateway.admin.customers.changes import with_change
from gateway.admin.customers.customers import Customers
from gateway.admin.customers.shapes import CustomerChange, CustomerShown, NewCustomer
from gateway.catalog import api_key_rows, customer_rows, kept_replies, menu_rows
from gateway.catalog.additions import Additions, MenuOf, menus_in
from gateway.catalog.api_key_rows import OWN, KeyRow
from gateway.catalog.customer_rows import CustomerRow
from gateway.catalog.problems import AlreadyExists, Invalid
from gateway.catalog.projector import AT_ONCE, project_customers, project_keys
from gateway.holds.terms import Timeline
from gateway.ledger.rows import batches

ROUTE = "/customers/bulk"

MOST = 1000
"""The most customers of one request."""

KEYS_MOST = 100

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Beginning = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,12}$")]


class BulkKey(NewKey):
    """A key to create: a new key, or a key made elsewhere, by its SHA-256."""

    sha256: Sha256 | None = Field(
        default=None,
        description="SHA-256, in lower-case hexadecimal, of a key that the customer has already, which has 16 to 256 "
        "printable characters and no spaces. If it is omitted, a new key is made.",
    )
    prefix: Beginning | None = Field(
        default=None, description="The beginning of that key, to recognise it; not `tc-`.", examples=["sk-a1b2"]
    )

    @model_validator(mode="after")
    def _check_digest_and_prefix(self) -> BulkKey:
        if (self.sha256 is None) != (self.prefix is None):
            raise ValueError("sha256 and prefix come together.")
        if self.prefix is not None and self.prefix.startswith(OWN):
            raise ValueError(f"Keys that begin with {OWN} are this gateway's to make.")
        return self


class BulkCustomer(NewCustomer):
    """A customer to create, with its keys."""

    keys: list[BulkKey] = Field(default_factory=list, max_length=KEYS_MOST)
    row: OneLine | None = Field(
        default=None,
        description="With `upsert`, your own name for this row: it identifies a customer without an `external_id` that "
        "the row created before.",
        examples=["customers.csv, row 12"],
    )


class BulkCustomers(Input):
    """Customers to create: all of them, or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"customers": [{"name": "Acme", "external_id": "crm-1042", "keys": [{}]}]}]}
    )

    customers: list[BulkCustomer] = Field(min_length=1, max_length=MOST)
    upsert: bool = Field(
        default=False,
        description="An existing customer, found by its `external_id` or its `row`, is changed in the fields of its "
        "row and gets the row's keys that it lacks; a deleted customer stays as it is.",
    )


State = Literal["created", "changed", "unchanged"]


class CustomerMade(BaseModel):
    """A customer and its keys; new keys with their text, which is not shown again."""

    customer: CustomerShown
    keys: list[KeyMade]
    state: State = "created"


class CustomersMade(BaseModel):
    """The customers, in the order of the request."""

    data: list[CustomerMade]


class Existing:
    """The existing customers and keys of a request, read at once, and the names that the request repeats."""

    def __init__(self, connection: Connection, body: BulkCustomers) -> None:
        requested = body.customers
        self._is_upsert = body.upsert
        names = [customer.external_id for customer in requested if customer.external_id is not None]
        self._by_name = {row.external_id: row for row in customer_rows.with_external_ids(connection, names)}
        rows = [
            customer.row
            for customer in requested
            if self._is_upsert and customer.external_id is None and customer.row is not None
        ]
        ids_by_row = kept_replies.ids_created(connection, ROUTE, rows)
        by_id = {row.id: row for row in customer_rows.with_ids(connection, list(ids_by_row.values()))}
        self._by_row = {name: by_id[customer_id] for name, customer_id in ids_by_row.items() if customer_id in by_id}
        self._by_digest = api_key_rows.of_digests(
            connection, [key.sha256 for customer in requested for key in customer.keys if key.sha256]
        )
        existing_ids = [row.id for row in (*self._by_name.values(), *self._by_row.values())] if self._is_upsert else []
        self._own: dict[tuple[str, str | None], list[KeyRow]] = defaultdict(list)
        for key in api_key_rows.of_customers(connection, existing_ids):
            if key.prefix.startswith(OWN):
                self._own[key.customer, key.name].append(key)
        self._used_names: set[tuple[str, str]] = set()
        self._requested_keys: Counter[tuple[str, str | None]] = Counter()
        self._new_rows: dict[str, str] = {}

    def customer(self, body: BulkCustomer) -> CustomerRow | None:
        """Return the customer of a row, or None where the row is a new customer.

        Raises:
            AlreadyExists: another customer has its external_id, and the request is no upsert or repeats it.
        """
        name = body.external_id
        if name is None:
            if self._is_upsert and body.row is not None:
                self._use_once("row", body.row, f"The row {body.row!r} is there twice.")
            return self._by_row.get(body.row or "")
        message = f"Another customer has the external_id {name!r}."
        self._use_once("external_id", name, message)
        if name in self._by_name and not self._is_upsert:
            raise AlreadyExists(message)
        return self._by_name.get(name)

    def _use_once(self, kind: str, name: str, message: str) -> None:
        if (kind, name) in self._used_names:
            raise AlreadyExists(message)
        self._used_names.add((kind, name))

    def note(self, body: BulkCustomer, customer_id: str) -> None:
        """Note the customer that a row created."""
        if self._is_upsert and body.external_id is None and body.row is not None:
            self._new_rows[body.row] = customer_id

    def remember(self, connection: Connection, now_ms: int) -> None:
        """Store the customers that rows created."""
        kept_replies.store_created(connection, ROUTE, self._new_rows, now_ms)

    def key(self, customer_id: str, key: BulkKey) -> KeyRow | None:
        """Return the existing key that a row describes: by digest, or by position among the customer's keys of a name.

        Raises:
            AlreadyExists: another customer has a key of this digest, or the request repeats it.
        """
        if key.sha256 is None:
            position = self._requested_keys[customer_id, key.name]
            self._requested_keys[customer_id, key.name] += 1
            same_name = self._own.get((customer_id, key.name), [])
            return same_name[position] if position < len(same_name) else None
        existing = self._by_digest.get(key.sha256)
        is_own = existing is not None and self._is_upsert and existing.customer == customer_id
        message = "There is an API key with this SHA-256 already."
        self._use_once("sha256", key.sha256, message)
        if existing is not None and not is_own:
            raise AlreadyExists(message)
        return existing


class Bulk:
    """Many customers in one transaction of the ledger."""

    def __init__(self, services: AdminServices, replies: Replies, customers: Customers, keys: Keys) -> None:
        self._services = services
        self._replies = replies
        self._customers = customers
        self._keys = keys

    def add_to(self, routes: Routes) -> None:
        routes.add("POST", ROUTE, self.create_many, "Create many customers, with keys", 409)

    def create_many(self, body: BulkCustomers, posted: Post) -> CustomersMade:
        """Create up to 1,000 customers with keys, or change existing ones; if one row fails, nothing changes.

        Keys from elsewhere are imported by their SHA-256 and keep working unchanged.
        """

        def change(keep: Keep) -> CustomersMade:
            with self._services.database.write() as connection:
                menu_rows.hold_still(connection)
                timeline, menu_of = menu_rows.read_timeline(connection), menus_in(connection)
                adding, existing = Additions(posted.actor, self._services.now_ms()), Existing(connection, body)
                answer = CustomersMade(
                    data=[
                        self._write_row(existing, adding, position, customer, timeline, menu_of)
                        for position, customer in enumerate(body.customers)
                    ]
                )
                adding.write(connection)
                existing.remember(connection, adding.now_ms)
                keep(connection, _without_keys(answer))
            with saved_only(answer):
                database, projection = self._services.database, self._services.projection
                if ids := [row.id for row in (*adding.customers, *adding.changed)]:
                    project_customers(database, projection, ids)
                key_ids = [row.key_id for row, _ in adding.keys]
                for batch in batches(key_ids, AT_ONCE):
                    project_keys(database, projection, batch)
            return answer

        return self._replies.once(posted, body, CustomersMade, change)

    def _write_row(
        self,
        existing: Existing,
        adding: Additions,
        position: int,
        body: BulkCustomer,
        timeline: Timeline,
        menu_of: MenuOf,
    ) -> CustomerMade:
        """Return the customer of one row, created or changed, with its keys."""
        try:
            row = existing.customer(body)
            state: State = "created"
            if row is None:
                customer = self._customers.new(adding, body, timeline, menu_of)
                existing.note(body, customer.id)
            else:
                changed_before = len(adding.changed)
                alter = partial(_altered, change_of(body))
                customer = self._customers.altered(adding, row, alter, timeline, menu_of, "customer.change")
                state = "unchanged" if len(adding.changed) == changed_before else "changed"
            keys_before = len(adding.keys)
            keys = [self._key(existing, adding, customer, key) for key in body.keys]
            if state == "unchanged" and len(adding.keys) > keys_before:
                state = "changed"
        except AlreadyExists as error:
            raise AlreadyExists(f"customers.{position}: {error.message}") from error
        except Invalid as error:
            raise Invalid.field(f"customers.{position}", error.message, error.code) from error
        return CustomerMade(customer=customer, keys=[key for key in keys if key is not None], state=state)

    def _key(self, rows: Existing, adding: Additions, customer: CustomerShown, key: BulkKey) -> KeyMade | None:
        """Return the existing key that a row describes, or a new key; None where a deleted customer lacks it."""
        existing = rows.key(customer.id, key)
        if existing is not None:
            return KeyMade(**shown(existing).model_dump(), key=None)
        if customer.status == "deleted":
            return None
        if key.sha256 is None or key.prefix is None:
            return self._keys.new(adding, customer.id, key)
        return self._keys.imported(adding, customer.id, key, key.sha256, key.prefix)


def _altered(change: CustomerChange, row: CustomerRow, timeline: Timeline, now_ms: int) -> CustomerRow:
    return row if row.status == "deleted" else with_change(row, change, timeline, now_ms)


def change_of(body: BulkCustomer) -> CustomerChange:
    """Return the change that gives a customer the fields that its row sets."""
    fields_set = body.model_fields_set & CustomerChange.model_fields.keys()
    return CustomerChange.model_construct(fields_set, **{name: getattr(body, name) for name in fields_set})


def _without_keys(answer: CustomersMade) -> CustomersMade:
    """Return the part of an answer that may be stored: everything except the keys' texts."""
    return CustomersMade(
        data=[
            customer.model_copy(update={"keys": [key.model_copy(update={"key": None}) for key in customer.keys]})
            for customer in answer.data
        ]
    )
