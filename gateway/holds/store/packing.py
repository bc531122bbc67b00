"""The packed arguments and replies of scripts; ``lua/shared.lua`` writes and reads the same form.

Numbers are doubles, in which whole numbers below 2^53 are exact; in replies they are integers of eight bytes. A text
has a zero byte at its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, cast

import redis
from redis.exceptions import ResponseError

from gateway.holds.store.clients import text

MOST = 2.0**53 - 1
"""Stands for a limit that is not set: no more than this can be counted."""

GRANTED = Struct("<7q")
"""The reply to an admitted reservation: the time, the tokens granted and allowed, the remaining tokens of conversation
and period, when the conversation began, and whether it was charged. Times in ms."""

DONE = Struct("<3q")
"""The reply to a settlement: the charge in nano-units, the conversation's remaining tokens, and the time in ms."""

NONE = -(2**53)
"""Stands in a reply for a number that is absent."""

_CONVERSATION = Struct("<9d")


def texts(*parts: str) -> bytes:
    """Return texts one after the other, each with a zero byte at its end."""
    return ("\0".join(parts) + "\0").encode()


def whole(number: float) -> int | None:
    """Return a whole number, or None for infinity, which means no limit."""
    return None if number == math.inf else int(number)


def mark(charge_nanousd: int, settled_ms: int) -> bytes:
    """Return the mark of a hold that was settled at that time, as a rebuild writes it."""
    return 3 * DONE.pack(charge_nanousd, NONE, settled_ms)


def settled_at(packed_mark: bytes) -> int:
    """Return when the hold with this mark was settled, ms."""
    return int(DONE.unpack_from(packed_mark)[2])


WINDOW = ("amounts", "used", "held", "spend_used", "spend_held", "included", "tokens_max", "spend_max")
"""The fields of a window: the packed amounts, then the fields of the previous version, which are added to them."""

_AMOUNTS = Struct("<7d")


@dataclass(frozen=True, slots=True)
class WindowState:
    """One period of a customer. Limits are those of its last admission; None is no limit."""

    used: int = 0
    held: int = 0
    spend_used: int = 0
    spend_held: int = 0
    included: int = 0
    tokens_max: int | None = None
    spend_max: int | None = None

    def to_bytes(self) -> bytes:
        limits = (math.inf if limit is None else limit for limit in (self.tokens_max, self.spend_max))
        return _AMOUNTS.pack(self.used, self.held, self.spend_used, self.spend_held, self.included, *limits)

    @classmethod
    def read(cls, values: Sequence[Any]) -> WindowState:
        """Return a window from the values of its fields, in their order."""
        amounts, *older = values
        *numbers, tokens_max, spend_max = _AMOUNTS.unpack(amounts) if amounts else (0,) * 5 + (math.inf,) * 2
        limits = (
            int(old) if old else whole(limit) for old, limit in zip(older[5:], (tokens_max, spend_max), strict=True)
        )
        return cls(*(int(number) + int(old or 0) for number, old in zip(numbers, older[:5], strict=True)), *limits)


def window_state(client: redis.Redis, name: str | bytes) -> WindowState:
    """Return the window under a key; an empty window where the key is absent."""
    return WindowState.read(cast(list[Any], client.hmget(cast(str, name), list(WINDOW))))


@dataclass(frozen=True, slots=True)
class ConversationState:
    """One conversation. Times in ms, the rest in tokens; ``live`` is how many of its calls are in flight."""

    first: int
    last: int
    live: int
    cap: int
    used: int
    held: int
    input_used: int
    input_held: int
    was_charged: bool
    tier: str
    version: str

    def to_bytes(self) -> bytes:
        numbers = (self.first, self.last, self.live, self.cap, self.used, self.held, self.input_used, self.input_held)
        return _CONVERSATION.pack(*numbers, self.was_charged) + texts(self.tier, self.version)

    @classmethod
    def from_bytes(cls, packed: bytes) -> ConversationState:
        first, last, live, cap, used, held, input_used, input_held, charged = map(
            int, _CONVERSATION.unpack_from(packed)
        )
        tier, version = packed[_CONVERSATION.size :].decode().split("\0")[:2]
        return cls(first, last, live, cap, used, held, input_used, input_held, charged == 1, tier, version)


_OLDER = ("first", "last", "live", "cap", "used", "held", "input_used", "input_held", "charged", "tier", "version")


def conversation_in(client: redis.Redis, name: str | bytes) -> ConversationState | None:
    """Return the conversation under a key, or None; until it ends it may be a hash of the previous version."""
    try:
        packed = client.get(name)
    except ResponseError:
        *numbers, tier, version = (text(part or b"") for part in cast(list[Any], client.hmget(name, list(_OLDER))))
        first, last, live, cap, used, held, input_used, input_held, charged = (int(number or 0) for number in numbers)
        return ConversationState(
            first, last, live, cap, used, held, input_used, input_held, charged == 1, tier, version
        )
    return None if packed is None else ConversationState.from_bytes(cast(bytes, packed))
