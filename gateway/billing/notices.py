"""A notice that a customer has come to a threshold of a limit: what the webhook is sent, and how it is signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.clock import written
from gateway.holds.hold import Facts


@dataclass(frozen=True, slots=True)
class Notice:
    """One threshold, reached once in a period. ``time`` is when, by Redis' clock, ms."""

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
    def read(cls, entry: str, fields: Mapping[str, str]) -> Notice:
        """Return the notice in an entry of a stream, by the entry's name and fields."""
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
        """The same for every delivery of this threshold in this period, and for no other."""
        which = f"{self.customer}\n{self.limit}\n{self.percent}\n{self.period_start}"
        return "evt_" + hashlib.sha256(which.encode()).hexdigest()[:32]

    def body(self) -> bytes:
        """Return what is posted; every delivery is the same bytes."""
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
        return json.dumps(event, separators=(",", ":")).encode()


def signed(event_id: str, body: bytes, key: bytes, now_s: int) -> dict[str, str]:
    """Return the headers of one delivery, signed as the Standard Webhooks specification says."""
    content = f"{event_id}.{now_s}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{signature}",
    }
