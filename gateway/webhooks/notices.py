"""The notices for the webhook, of thresholds, lock-outs and menus put in force, and their signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.clock import written
from gateway.holds.hold import Facts
from gateway.holds.terms import Publication


class Notice(Protocol):
    """One notice. Every delivery of it has the same id and the same bytes."""

    @property
    def id(self) -> str: ...

    def body(self) -> bytes: ...


def read_notice(entry: str, fields: Mapping[str, str]) -> Notice:
    """Return the notice in an entry of a stream, from the entry's name and fields."""
    if "publication" in fields:
        return MenuPublished.read(fields)
    return LockedOut.read(fields) if "locked_out" in fields else Threshold.read(entry, fields)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold reached, once in a period for each amount of the limit. ``time`` is when, by Redis' clock, ms."""

    time: int
    limit: str
    """``period_tokens`` or ``spend``."""
    percent: int
    max: int
    used: int
    customer: str
    period_start: int
    period_end: int

    @classmethod
    def read(cls, entry: str, fields: Mapping[str, str]) -> Threshold:
        facts = Facts.from_json(fields["facts"])
        return cls(
            time=int(entry.partition("-")[0]),
            limit=fields["limit"],
            percent=int(fields["percent"]),
            max=int(fields["max"]),
            used=int(fields["used"]),
            customer=facts.customer,
            period_start=facts.period_start,
            period_end=facts.period_end,
        )

    @property
    def id(self) -> str:
        """The same for every notice of this threshold, amount of the limit and period, and for no other notice."""
        return _event_id(self.customer, self.limit, self.percent, self.period_start, self.max)

    def body(self) -> bytes:
        event = {
            "id": self.id,
            "type": "quota.threshold",
            "time": written(self.time),
            "customer": self.customer,
            "limit": self.limit,
            "percent": self.percent,
            "max": self.max,
            "used": self.used,
            "period": {"start": written(self.period_start), "end": written(self.period_end)},
        }
        return _posted(event)


@dataclass(frozen=True, slots=True)
class LockedOut:
    """A limit that refuses a customer's calls until it is raised or its period ends, from ``time`` (ms) on."""

    time: int
    limit: str
    """``period_tokens`` or ``spend``."""
    max: int
    used: int
    held: int
    asked: int
    customer: str
    period_start: int
    period_end: int

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> LockedOut:
        values = json.loads(fields["facts"])
        return cls(**{name: values[name] for name in cls.__slots__})

    @property
    def id(self) -> str:
        """The same for every notice of this limit, its amount and the period, and for no other notice."""
        return _event_id(self.customer, "locked_out", self.limit, self.period_start, self.max)

    def body(self) -> bytes:
        event = {
            "id": self.id,
            "type": "quota.locked_out",
            "time": written(self.time),
            "customer": self.customer,
            "limit": self.limit,
            "max": self.max,
            "used": self.used,
            "held": self.held,
            "asked": self.asked,
            "period": {"start": written(self.period_start), "end": written(self.period_end)},
        }
        return _posted(event)


@dataclass(frozen=True, slots=True)
class MenuPublished:
    """A menu put in force: at once, or for each customer from its next period on."""

    publication: Publication

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> MenuPublished:
        return cls(Publication(**json.loads(fields["publication"])))

    @property
    def id(self) -> str:
        """The same for every notice of this publication, and for no other notice."""
        return _event_id("menu", self.publication.seq, self.publication.version, self.publication.at)

    def body(self) -> bytes:
        event = {
            "id": self.id,
            "type": "menu.published",
            "time": written(self.publication.at),
            "version": self.publication.version,
            "effective": self.publication.effective,
            "moves": self.publication.moves,
        }
        return _posted(event)


def _event_id(*parts: str | int) -> str:
    return "evt_" + hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _posted(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def signed(event_id: str, body: bytes, key: bytes, now_s: int) -> dict[str, str]:
    """Return the headers of one delivery, signed according to the Standard Webhooks specification."""
    content = f"{event_id}.{now_s}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{signature}",
    }
