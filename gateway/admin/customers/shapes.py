"""A customer in the requests and answers of the admin API."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.api.inputs import Input, Moment, OneLine, Overrides, Percents, TierName, Zone, unset
from gateway.admin.api.pages import Page
from gateway.catalog.customer_rows import CustomerRow, Status
from gateway.clock import written
from gateway.holds.periods import PeriodKind
from gateway.holds.terms import Timeline, standing
from pricing.menus.menu import own_prices

OpenStatus = Literal["active", "blocked"]

UNCHANGED = "If omitted, it stays as it is."
PERCENTS = "The percents of a limit at which the webhook gets a notice; null is the installation's list, [] is none."


class NewCustomer(Input):
    """A customer to create."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "Acme", "tier": "basic", "timezone": "Europe/Berlin"}]}
    )

    name: OneLine = Field(examples=["Acme"])
    tier: TierName | None = Field(
        default=None, description="A tier of the menu in force; without a tier no call is served.", examples=["basic"]
    )
    status: OpenStatus = Field(default="active", description="A blocked customer's calls are refused with 403.")
    period: PeriodKind = Field(default="month", description="The period that quotas and spend limits are counted over.")
    timezone: Zone = Field(
        default="UTC", description="The time zone in which its periods begin.", examples=["Europe/Berlin"]
    )
    external_id: OneLine | None = Field(
        default=None, description="Your own id of this customer, unique; exports include it.", examples=["crm-1042"]
    )
    overrides: Overrides = Field(
        default_factory=Overrides, description="The customer's own limits and prices, which replace those of its tier."
    )
    notice_percents: Percents | None = Field(default=None, description=PERCENTS, examples=[[50, 80, 100]])


class CustomerChange(Input):
    """The fields to change. Omitted fields stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "blocked"}]})

    name: OneLine = Field(default_factory=unset, description=UNCHANGED, examples=["Acme Ltd"])
    tier: TierName | None = Field(
        default=None, description=f"From the next conversation on; null removes the tier. {UNCHANGED}", examples=["pro"]
    )
    status: OpenStatus = Field(default_factory=unset, description=UNCHANGED)
    period: PeriodKind = Field(default_factory=unset, description=UNCHANGED)
    timezone: Zone = Field(default_factory=unset, description=UNCHANGED, examples=["Europe/Berlin"])
    external_id: OneLine | None = Field(
        default=None, description=f"Null removes it. {UNCHANGED}", examples=["crm-1042"]
    )
    overrides: Overrides | None = Field(
        default=None,
        description=f"All of this customer's own limits and prices; null or {{}} removes them. {UNCHANGED}",
    )
    notice_percents: Percents | None = Field(default=None, description=f"{PERCENTS} {UNCHANGED}", examples=[[50, 100]])


class TierChoice(Input):
    """A tier, and when it takes effect."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tier": "pro", "effective": "next_period"}]})

    tier: TierName | None = Field(description="A tier of the menu in force then; null is no tier.", examples=["pro"])
    effective: Literal["now", "next_period"] = Field(
        default="now",
        description="`now`: from the next conversation on, and a pending change is dropped. "
        "`next_period`: from the start of the customer's next period; the present tier drops a pending change.",
    )


class ComingTier(BaseModel):
    """A change that is already decided."""

    tier: str | None
    menu_version: str | None
    effective: Moment


class IncreaseShown(BaseModel):
    """Limits that are raised for a time."""

    limits: dict[str, int]
    until: Moment
    reason: str


class CustomerShown(BaseModel):
    """A customer."""

    id: str = Field(description="The gateway's own id, which never changes.", examples=["cus_5bd0c1f2a47e9c3d10fa2b64"])
    name: str = Field(description="Empty once the customer was erased.", examples=["Acme"])
    tier: str | None = Field(description="The present tier.", examples=["basic"])
    status: Status
    period: PeriodKind
    timezone: str = Field(examples=["Europe/Berlin"])
    external_id: str | None = Field(examples=["crm-1042"])
    overrides: dict[str, int] = Field(description="The customer's own limits and prices.", examples=[{}])
    certificate_withdrawn: bool = Field(
        description="Whether the customer has prices of its own: its menu's certificate does not hold for it then."
    )
    notice_percents: list[int] | None = Field(description="Null is the installation's list.", examples=[None])
    increase: IncreaseShown | None = Field(default=None, description="Limits that are raised for a time.")
    created: Moment
    menu_version: str | None = Field(description="The menu in force for this customer now.", examples=["manual-1f0c…"])
    next: ComingTier | None = Field(description="The next change of tier or menu that is already decided.")


class CustomersShown(Page[CustomerShown]):
    """Customers in the order they were created."""


def shown(row: CustomerRow, timeline: Timeline, now_ms: int) -> CustomerShown:
    """Return a customer with the tier that it has at ``now_ms``."""
    stands = standing(row.terms(), timeline, now_ms)
    coming = None
    if stands.next is not None:
        change = stands.next
        coming = ComingTier(tier=change.tier, menu_version=change.version, effective=written(change.effective))
    return CustomerShown(
        id=row.id,
        name=row.name,
        tier=stands.tier,
        status=row.status,
        period=row.period,
        timezone=row.timezone,
        external_id=row.external_id,
        overrides=row.overrides,
        certificate_withdrawn=bool(own_prices(row.overrides)),
        notice_percents=row.notice_percents,
        increase=_increase(row, now_ms),
        created=written(row.created),
        menu_version=stands.version,
        next=coming,
    )


def _increase(row: CustomerRow, now_ms: int) -> IncreaseShown | None:
    if row.increase is None or row.increase_until is None or now_ms >= row.increase_until:
        return None
    return IncreaseShown(**row.increase, until=written(row.increase_until))
