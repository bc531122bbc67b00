"""The routes of ``/admin/tiers``: tiers typed by hand, each change a new menu at once, without a certificate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Actor
from gateway.admin.api.inputs import Limits, TierName, WholeNumber
from gateway.admin.api.problem_json import saved_only
from gateway.admin.api.routes import AdminServices, Routes
from gateway.catalog import audit_rows, menu_rows
from gateway.catalog.problems import Invalid, NotFound
from gateway.catalog.projector import project_menus
from gateway.clock import written
from gateway.holds.terms import Timeline
from pricing.menus.menu import PRICE_FIELDS, HangupBills, Menu, Tier

MANUAL = "manual"

Name = Annotated[TierName, Path(description="The name of the tier.", examples=["basic"])]

Tiers = tuple[Tier, ...]


class TierInput(Limits):
    """A tier, sold under one name. Money is in nano-units: 10^9 are 1 USD."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"conversation_tokens_max": 4000, "price_nanousd": 20_000_000}]}
    )

    name: TierName | None = Field(default=None, description="The name in the path, if the body has one.")
    price_nanousd: WholeNumber = Field(
        default=0, description="The price of one conversation, charged with its first token.", examples=[20_000_000]
    )
    period_price_nanousd: WholeNumber | None = Field(default=None, description="A fee for each period: a subscription.")
    included_conversations: WholeNumber | None = Field(
        default=None, description="The number of conversations that a period's fee includes."
    )
    input_nanousd_per_mtok: WholeNumber | None = Field(default=None, description="A rate per million input tokens.")
    output_nanousd_per_mtok: WholeNumber | None = Field(
        default=None, description="A rate per million billed output tokens."
    )
    hangup_bills: HangupBills | None = Field(
        default=None,
        description="How a call is billed if its caller hung up and the model's endpoint does not report the tokens"
        " that it made; null is as TOKENCAP_HANGUP_BILLS says.",
    )

    def tier(self, name: str) -> Tier:
        prices = {field: getattr(self, field) for field in PRICE_FIELDS}
        return Tier(name=name, hangup_bills=self.hangup_bills, **prices, **self.set_limits())


class TierShown(BaseModel):
    """A tier of the menu in force. Limits and prices that are null are not set."""

    name: str = Field(examples=["basic"])
    conversation_tokens_max: int | None = Field(description="The cap; null is no cap.", examples=[4000])
    price_nanousd: int = Field(description="The price of one conversation.", examples=[20_000_000])
    period_tokens_max: int | None
    period_price_nanousd: int | None
    included_conversations: int | None
    conversation_input_tokens_max: int | None
    input_nanousd_per_mtok: int | None
    output_nanousd_per_mtok: int | None
    requests_per_minute: int | None
    concurrency_max: int | None
    spend_nanousd_max: int | None
    end_user_period_tokens_max: int | None
    hangup_bills: str | None
    menu_version: str = Field(description="The menu that the tier is on.", examples=["manual-1f0c9d2b77ae"])


class TiersShown(BaseModel):
    """The tiers of the menu in force."""

    data: list[TierShown]
    next_cursor: str | None = Field(default=None, description="Always null: a menu is one page.")
    menu_version: str | None = Field(description="Null before the first publication.", examples=["manual-1f0c9d2b77ae"])


def shown(tier: Tier, version: str) -> TierShown:
    return TierShown(menu_version=version, **{name: getattr(tier, name) for name in Tier.__dataclass_fields__})


def manual_menu(tiers: Tiers, *, created: str, currency: str, after: int) -> Menu:
    """Return tiers as a menu. Its version hashes the tiers and the number of the publication that they come ``after``.

    The same tiers get another version at a later time: each version is in force for one stretch of time.
    """
    bill = "subscription" if any(tier.period_price_nanousd is not None for tier in tiers) else "conversation"
    unnamed = Menu("unnamed", created, currency, bill, tiers)
    hashed = json.dumps([unnamed.to_json(), after], sort_keys=True, separators=(",", ":"))
    return replace(unnamed, version=f"{MANUAL}-{hashlib.sha256(hashed.encode()).hexdigest()[:12]}")


class HandTypedTiers:
    """Tiers that no mechanism computed: for a first menu, or for an agreed price."""

    def __init__(self, services: AdminServices) -> None:
        self._services = services
        self._database = services.database

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", "/tiers", self.list, "List the tiers in force")
        routes.add("GET", "/tiers/{name}", self.read, "Read a tier", 404)
        routes.add("PUT", "/tiers/{name}", self.put, "Type a tier by hand", 409)
        routes.add("DELETE", "/tiers/{name}", self.delete, "Withdraw a tier", 404, 409)

    def list(self) -> TiersShown:
        """List the tiers of the menu in force, computed or typed by hand."""
        with self._database.read() as connection:
            menu = self._in_force(connection, menu_rows.read_timeline(connection))
        if menu is None:
            return TiersShown(data=[], menu_version=None)
        return TiersShown(data=[shown(tier, menu.version) for tier in menu.tiers], menu_version=menu.version)

    def read(self, name: Name) -> TierShown:
        """Return one tier of the menu in force."""
        with self._database.read() as connection:
            menu = self._in_force(connection, menu_rows.read_timeline(connection))
        tier = menu.tier(name) if menu else None
        if menu is None or tier is None:
            raise NotFound(f"The menu in force has no tier {name!r}.")
        return shown(tier, menu.version)

    def put(self, name: Name, body: TierInput, actor: Actor) -> TierShown:
        """Add or replace a tier at once, as a new menu version without a certificate.

        Open conversations and subscription periods keep the version they began with. Sending an unchanged tier changes
        nothing.
        """
        if body.name not in (None, name):
            raise Invalid.field("name", f"The path says {name!r}: a tier is not renamed.")
        tier = body.tier(name)

        def typed(tiers: Tiers) -> Tiers:
            if any(present.name == name for present in tiers):
                return tuple(tier if present.name == name else present for present in tiers)
            return (*tiers, tier)

        return shown(tier, self._change(actor, "tier.put", name, typed).version)

    def delete(self, name: Name, actor: Actor) -> None:
        """Withdraw a tier that no customer has, at once, as a new menu version."""

        def without(tiers: Tiers) -> Tiers:
            if all(tier.name != name for tier in tiers):
                raise NotFound(f"The menu in force has no tier {name!r}.")
            return tuple(tier for tier in tiers if tier.name != name)

        self._change(actor, "tier.delete", name, without)

    def _change(self, actor: str, action: str, name: str, alter: Callable[[Tiers], Tiers]) -> Menu:
        """Put in force a menu with the tiers that ``alter`` returns for the present tiers, unless both are the same."""
        with self._database.write() as connection:
            menu_rows.hold_still(connection, to_publish=True)
            timeline = menu_rows.read_timeline(connection)
            before = self._in_force(connection, timeline)
            tiers = alter(before.tiers if before else ())
            if before is not None and tiers == before.tiers:
                return before
            after = self._publish(connection, tiers, timeline)
            self._record(connection, actor, action, name, before, after)
        with saved_only():
            project_menus(self._database, self._services.projection)
        return after

    def _publish(self, connection: Connection, tiers: Tiers, timeline: Timeline) -> Menu:
        now, currency = self._services.now_ms(), self._services.settings.currency
        menu = manual_menu(tiers, created=written(now), currency=currency, after=timeline.rev)
        menu_rows.add_menu(connection, menu.to_json(), source=MANUAL, created=now)
        menu_rows.publish(connection, menu, now_ms=now)
        return menu

    def _in_force(self, connection: Connection, timeline: Timeline) -> Menu | None:
        version = menu_rows.in_force(timeline, self._services.now_ms())
        return None if version is None else menu_rows.read_menu(connection, version)

    def _record(
        self, connection: Connection, actor: str, action: str, name: str, before: Menu | None, after: Menu
    ) -> None:
        audit_rows.record(
            connection,
            time=self._services.now_ms(),
            actor=actor,
            action=action,
            target=name,
            before=_facts(before, name),
            after=_facts(after, name),
        )


def _facts(menu: Menu | None, name: str) -> dict[str, Any] | None:
    tier = menu.tier(name) if menu else None
    return None if menu is None or tier is None else tier.to_json() | {"menu_version": menu.version}
