"""Which tier of which menu version is in force for a customer: pure, from its record and the publications."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

from gateway.holds.periods import PeriodKind, next_start, period_at


@dataclass(frozen=True, slots=True)
class Subscription:
    """A period whose fee is charged: its tier and menu version stay in force until it ends, whatever is published."""

    tier: str
    version: str
    start: int
    until: int

    def is_open(self, now_ms: int) -> bool:
        return self.start <= now_ms < self.until


@dataclass(frozen=True, slots=True)
class Increase:
    """Limits that are raised until a time; an increase never lowers a limit that applies without it."""

    limits: dict[str, int]
    until: int


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as the serving path knows it; ``rev`` rises with every change."""

    id: str
    status: Literal["active", "blocked", "deleted"]
    tier: str | None
    tier_since: int
    next_tier: str | None
    next_tier_at: int | None
    period: PeriodKind
    timezone: str
    overrides: dict[str, int]
    rev: int
    subscription: Subscription | None = None
    created: int = 0
    increase: Increase | None = None
    notice_percents: tuple[int, ...] | None = None
    """The percentages of a limit at which the webhook is notified; None means those of the installation."""

    def raised(self, now_ms: int) -> dict[str, int]:
        """Return the limits that are raised at ``now_ms``."""
        if self.increase is None or now_ms >= self.increase.until:
            return {}
        return self.increase.limits

    def to_json(self) -> str:
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Customer:
        values = json.loads(text)
        subscription, increase = values.pop("subscription", None), values.pop("increase", None)
        percents = values.pop("notice_percents", None)
        return cls(
            **values,
            subscription=Subscription(**subscription) if subscription else None,
            increase=Increase(**increase) if increase else None,
            notice_percents=None if percents is None else tuple(percents),
        )


@dataclass(frozen=True, slots=True)
class Publication:
    """One menu put in force: from ``at`` on, or from each customer's next period after ``at``.

    ``arms`` are other menus of the same tiers, each with the share of new customers that gets it instead. They are an
    experiment, which lasts until the next publication.
    """

    seq: int
    version: str
    at: int
    effective: Literal["now", "next_period"]
    moves: dict[str, str] = field(default_factory=dict)
    arms: dict[str, float] = field(default_factory=dict)

    @property
    def versions(self) -> tuple[str, ...]:
        """Return every menu that some customer has by this publication."""
        return (self.version, *self.arms)

    def version_for(self, customer: Customer) -> str:
        """Return the menu that a customer has by this publication: of one customer always the same, drawn from its id.

        A customer created before the publication is in no arm.
        """
        if not self.arms or customer.created < self.at:
            return self.version
        drawn = hashlib.sha256(f"{self.seq}:{customer.id}".encode()).digest()
        position = int.from_bytes(drawn[:8]) / 2**64
        for version, share in sorted(self.arms.items()):
            if position < share:
                return version
            position -= share
        return self.version


@dataclass(frozen=True, slots=True)
class Timeline:
    """The publications, oldest first; ``rev`` is the number of the last publication, 0 before the first."""

    publications: tuple[Publication, ...] = ()

    @property
    def rev(self) -> int:
        return self.publications[-1].seq if self.publications else 0

    @property
    def versions(self) -> set[str]:
        """Return every menu that some customer has, or had, by a publication."""
        return {version for publication in self.publications for version in publication.versions}

    def former_names(self, tier: str) -> set[str]:
        """Return the names under which a customer may have got its present tier: publications rename some tiers."""
        names = {tier}
        for publication in reversed(self.publications):
            names |= {old for old, new in publication.moves.items() if new in names}
        return names

    def to_json(self) -> str:
        return json.dumps([asdict(publication) for publication in self.publications], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes | None) -> Timeline:
        publications: list[dict[str, Any]] = json.loads(text) if text else []
        return cls(tuple(Publication(**publication) for publication in publications))


@dataclass(frozen=True, slots=True)
class Standing:
    """A customer's tier and menu version at a time, and the next change that is already decided, if any."""

    tier: str | None
    version: str | None
    next: Change | None


@dataclass(frozen=True, slots=True)
class Change:
    tier: str | None
    version: str | None
    effective: int


def standing(customer: Customer, timeline: Timeline, now_ms: int) -> Standing:
    """Return the customer's tier and menu version at ``now_ms``.

    A change is the customer's own next tier, or a publication with the tier names that it moves. Each change has one
    moment at which it takes effect for this customer, and the changes up to ``now_ms`` are applied in the order of
    those moments. An open subscription holds until its end; changes decided meanwhile take effect then.
    """
    subscription = customer.subscription
    if subscription is None or not subscription.is_open(now_ms):
        return _decided(customer, timeline, now_ms)
    after = _decided(customer, timeline, subscription.until)
    stays = (after.tier, after.version) == (subscription.tier, subscription.version)
    next_change = None if stays else Change(after.tier, after.version, subscription.until)
    return Standing(subscription.tier, subscription.version, next_change)


def _decided(customer: Customer, timeline: Timeline, now_ms: int) -> Standing:
    """Return the standing by the changes alone."""
    tier, version, next_change = customer.tier, None, None
    for effective, publication in _changes(customer, timeline):
        # A tier that was set after a publication took effect has its name in that menu already.
        after = _changed(tier, version, publication, customer, effective)
        if effective <= now_ms:
            tier, version = after
        elif next_change is None:
            next_change = Change(after[0], after[1], effective)
    return Standing(tier, version, next_change)


def _changes(customer: Customer, timeline: Timeline) -> list[tuple[int, Publication | None]]:
    """Return (moment, publication), and (moment, None) for the customer's own next tier, in the order they apply.

    A publication that waits for the next period is dropped where a later publication takes effect before or with it.
    """
    changes: list[tuple[int, Publication | None]] = []
    earliest: float = math.inf
    for publication in reversed(timeline.publications):
        effective = _takes_effect(publication, customer)
        if effective < earliest or publication.effective == "now":
            changes.append((effective, publication))
        earliest = min(earliest, effective)
    if customer.next_tier_at is not None:
        changes.append((customer.next_tier_at, None))
    return sorted(changes, key=lambda change: (change[0], change[1].seq if change[1] else 0))


def _changed(
    tier: str | None, version: str | None, publication: Publication | None, customer: Customer, effective: int
) -> tuple[str | None, str | None]:
    if publication is None:
        return customer.next_tier, version
    if tier is not None and effective >= customer.tier_since:
        tier = publication.moves.get(tier, tier)
    return tier, publication.version_for(customer)


def _takes_effect(publication: Publication, customer: Customer) -> int:
    if publication.effective == "now":
        return publication.at
    return next_start(customer.period, customer.timezone, publication.at)


def period_of(customer: Customer, now_ms: int) -> tuple[int, int]:
    """Return the half-open period that ``now_ms`` falls in, in the customer's own zone."""
    return period_at(customer.period, customer.timezone, now_ms)
