"""A hold, the outcome of its call, and the usage record made from the two; nothing here does I/O.

Objects created for each call are not frozen, though nothing changes them: a frozen object takes four times as long to
create.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from struct import Struct
from typing import Any

import orjson

from gateway.holds.offer import Charge, charge
from pricing.usage import UsageRecord

NOTICE_PERCENTS = (80, 100)
"""The percentages of a limit at which the webhook is notified, unless the operator sets others."""

LIMITS = Struct("<4d")
THRESHOLD = Struct("<3d")


@dataclass(slots=True)
class ReservationRequest:
    """The request of a call before it is admitted."""

    id: str
    bucket: str
    key_digest: str
    conversation: str
    endpoint: str
    model: str
    stream: bool
    choices: int
    requested_tokens: int | None
    input_bound: int
    """The most input tokens that the call can be billed."""
    input_estimate: int
    """The input tokens that are billed where no report has their number."""
    tier_chosen: str | None = None
    client_request_id: str | None = None
    generates: bool = True
    """Whether the call can produce output tokens; if not, none are held."""
    end_user: str | None = None
    """The customer's own user that the call is for."""
    model_tokens_max: int | None = None
    """How many tokens the model's prompt and answer may have together, where that is known."""
    is_count: bool = False
    """Whether the call only counts tokens: such calls have a request rate of their own."""


@dataclass
class Facts:
    """The facts of a call, fixed at its admission and stored in the hold, so that any process can write the record.

    The class has no slots, so that the fields that are the same for all calls of a customer can be copied in one step.
    """

    id: str
    bucket: str
    customer: str
    key_id: str
    conversation: str
    tier: str | None
    tier_chosen: str | None
    menu_version: str | None
    endpoint: str
    model: str
    stream: bool
    choices: int
    requested_tokens: int | None
    client_request_id: str | None
    currency: str
    price_nanousd: int
    included_conversations: int
    input_nanousd_per_mtok: int
    output_nanousd_per_mtok: int
    input_bound: int
    input_estimate: int
    conversation_tokens_max: int
    period_start: int
    period_end: int
    period_tokens_max: int | None = None
    spend_nanousd_max: int | None = None
    end_user: str | None = None
    end_user_window: str | None = None
    """The Redis key of the end user's use in the period, where that use is limited."""
    hangup_bills: str | None = None
    """How the tier bills a call whose caller hung up, where the upstream does not report the tokens it generated."""
    notice_percents: tuple[int, ...] | None = None
    """The percentages of a limit at which the webhook is notified, where they differ from ``NOTICE_PERCENTS``."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Facts:
        """Return the facts of a call from their values by name: every field, and no other name."""
        facts = cls.__new__(cls)
        facts.__dict__ = values
        return facts

    def to_json(self) -> bytes:
        return orjson.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str | bytes) -> Facts:
        values = orjson.loads(text)
        if values.get("notice_percents") is not None:
            values["notice_percents"] = tuple(values["notice_percents"])
        return cls(**{name: values[name] for name in FACTS if name in values})

    def thresholds(self) -> bytes:
        """Return the thresholds of notices, packed; empty where there are none.

        First come the period's tokens and spend, infinite where there is no limit, and the smallest share of each that
        is a threshold; then for each threshold its percentage, and that share of the tokens and of the spend.
        """
        return _thresholds(self.period_tokens_max, self.spend_nanousd_max, self.notice_percents)

    def charge(self, outcome: Outcome) -> Charge:
        """Return the cost of a call. Where spend is limited, input beyond the held input is the operator's loss."""
        is_limited = self.spend_nanousd_max is not None
        return charge(
            self.price_nanousd,
            self.input_nanousd_per_mtok,
            self.output_nanousd_per_mtok,
            tokens=outcome.billed_output_tokens,
            input_tokens=min(outcome.input_tokens, self.input_bound) if is_limited else outcome.input_tokens,
            owes_input=outcome.owes_input,
        )


FACTS = tuple(field.name for field in fields(Facts))


@lru_cache(maxsize=4096)
def _thresholds(tokens: int | None, spend: int | None, percents: tuple[int, ...] | None) -> bytes:
    def share(limit: int | None, percentage: int) -> float:
        return math.inf if limit is None else -(-limit * percentage // 100)

    applicable = () if tokens is None and spend is None else NOTICE_PERCENTS if percents is None else percents
    if not applicable:
        return b""
    limits = LIMITS.pack(*(share(limit, percent) for percent in (100, min(applicable)) for limit in (tokens, spend)))
    return limits + b"".join(
        THRESHOLD.pack(percent, share(tokens, percent), share(spend, percent)) for percent in applicable
    )


@dataclass(slots=True)
class Hold:
    """Tokens set aside for one admitted call, and the limits of that call."""

    facts: Facts
    admitted: int
    """The time of admission, ms: Redis' time, or the worker's where the two clocks disagree."""
    grant: int
    """Tokens that each choice may have; the hold is the grant times the number of choices."""
    bound_by: str
    """The limit that ends an answer that uses the whole grant: ``cap``, ``caller_limit`` or ``period``."""
    conversation_left: int
    period_left: int | None
    period_tokens_max: int | None
    conversation_first: int
    was_charged: bool
    """Whether the conversation's price was charged before this call."""
    money: int

    @property
    def id(self) -> str:
        return self.facts.id

    @property
    def tokens(self) -> int:
        return self.grant * self.facts.choices


@dataclass(slots=True)
class Outcome:
    """The outcome of a call, however it ended. ``was_answered`` is false where the upstream sent no 2xx head."""

    was_answered: bool
    finish: str = "upstream_error"
    output_tokens: int = 0
    billed_output_tokens: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: str = "counted"
    input_source: str | None = None
    usage_dispute: str | None = None
    """The contradiction in the upstream's figures: ``itself``, ``text`` or None."""
    ttft_ms: int | None = None
    duration_ms: int = 0
    owes_input: bool = False
    """Whether the input is charged even without an output token."""
    threads: tuple[str, ...] = ()
    """Digests of the parts of the answer that a later call of this conversation may send back."""


@dataclass(frozen=True, slots=True)
class Once:
    """The claim of a call on its Idempotency-Key, and the sealed answers; the charge decides which of them is kept."""

    digest: str
    body: str
    """A digest of the call's body, so that the claim can be made again."""
    answer_first: bytes = b""
    answer_again: bytes = b""


UNANSWERED = Outcome(was_answered=False)


@dataclass(slots=True)
class Settled:
    """A settlement that Redis has made."""

    charge_nanousd: int
    conversation_left: int | None


def usage_record(facts: Facts, *, admitted: int, grant: int, outcome: Outcome) -> UsageRecord:
    """Return the record of a call without its charge and its place in the chain, which are decided later."""
    return {
        "id": facts.id,
        "kind": "usage",
        "corrects": None,
        "time": admitted,
        "customer": facts.customer,
        "key_id": facts.key_id,
        "conversation": facts.conversation,
        "tier": facts.tier,
        "tier_chosen": facts.tier_chosen,
        "menu_version": facts.menu_version,
        "endpoint": facts.endpoint,
        "model": facts.model,
        "stream": facts.stream,
        "choices": facts.choices,
        "input_tokens": outcome.input_tokens,
        "cached_tokens": outcome.cached_tokens,
        "output_tokens": outcome.output_tokens,
        "reasoning_tokens": outcome.reasoning_tokens,
        "billed_output_tokens": outcome.billed_output_tokens,
        "cap_tokens": grant,
        "requested_tokens": facts.requested_tokens,
        "finish": outcome.finish,
        "usage_source": outcome.usage_source,
        "ttft_ms": outcome.ttft_ms,
        "duration_ms": outcome.duration_ms,
        "currency": facts.currency,
        "client_request_id": facts.client_request_id,
        "end_user": facts.end_user,
        "input_source": outcome.input_source,
        "usage_dispute": outcome.usage_dispute,
    }


@dataclass(slots=True)
class Checkpoint:
    """The progress of a call at its last renewal."""

    tokens: int
    owes_input: bool = False
    """Whether the input is charged without a relayed token: the caller left an answer that the upstream had begun."""


def recovered(facts: Facts, checkpoint: Checkpoint) -> Outcome:
    """Return the outcome that a reclaimed hold is billed for: its use at the last renewal, and no more."""
    has_input = checkpoint.tokens > 0 or checkpoint.owes_input
    return Outcome(
        was_answered=True,
        finish="recovered",
        output_tokens=checkpoint.tokens,
        billed_output_tokens=checkpoint.tokens,
        input_tokens=facts.input_estimate if has_input else 0,
        usage_source="checkpoint",
        input_source="estimate" if has_input else None,
        owes_input=checkpoint.owes_input,
    )


def correction(facts: Facts, *, admitted: int, grant: int, outcome: Outcome, billed: Checkpoint) -> UsageRecord:
    """Return the row that corrects a hold billed at its checkpoint: the call's use beyond the checkpoint."""
    record = usage_record(facts, admitted=admitted, grant=grant, outcome=outcome)
    before = recovered(facts, billed)
    changed: dict[str, Any] = {"id": f"{facts.id}.1", "kind": "correction", "corrects": facts.id}
    for name in ("input_tokens", "output_tokens", "billed_output_tokens"):
        changed[name] = record[name] - getattr(before, name)
    return {**record, **changed}
