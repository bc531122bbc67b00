"""Published tiers and menus: ``menu.json``, read and checked with the standard library alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from pricing.money import MOST

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The name of a tier: 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or digit."""

LIMIT_FIELDS: tuple[str, ...] = (
    "conversation_tokens_max",
    "period_tokens_max",
    "conversation_input_tokens_max",
    "requests_per_minute",
    "concurrency_max",
    "spend_nanousd_max",
    "end_user_period_tokens_max",
)
"""The limits a tier may set and a customer's ``overrides`` may replace."""

PRICE_FIELDS: tuple[str, ...] = (
    "price_nanousd",
    "period_price_nanousd",
    "included_conversations",
    "input_nanousd_per_mtok",
    "output_nanousd_per_mtok",
)

OWN_PRICES: Mapping[str, str] = {
    "c": "price_nanousd",
    "p": "period_price_nanousd",
    "i": "input_nanousd_per_mtok",
    "o": "output_nanousd_per_mtok",
}
"""The prices that a customer's ``overrides`` may replace, by the letter that denotes each in a menu version."""

OWN_VERSION = re.compile(r"(.*)\+([cpio]\d{1,16}(?:,[cpio]\d{1,16})*)", re.DOTALL)

HangupBills = Literal["visible", "timed", "granted"]
"""How a call is billed if its caller hung up and the model's endpoint does not report the generated tokens: by the
tokens that the caller could see, by the duration of the call at the model's speed, or by all tokens granted."""

HANGUP_BILLS: tuple[HangupBills, ...] = get_args(HangupBills)


class NotAMenu(ValueError):
    """The input is not a menu or a tier; the message is one sentence, ``field`` names the wrong field."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Tier:
    """A product under one name: a cap, a price, and the operator's other limits. ``None`` is no limit.

    Token counts are billed output tokens unless named input; money is in nano-units; rates are per million tokens.
    """

    name: str
    price_nanousd: int = 0
    conversation_tokens_max: int | None = None
    period_tokens_max: int | None = None
    period_price_nanousd: int | None = None
    included_conversations: int | None = None
    conversation_input_tokens_max: int | None = None
    input_nanousd_per_mtok: int | None = None
    output_nanousd_per_mtok: int | None = None
    requests_per_minute: int | None = None
    concurrency_max: int | None = None
    spend_nanousd_max: int | None = None
    end_user_period_tokens_max: int | None = None
    hangup_bills: str | None = None
    """One of ``HANGUP_BILLS``; None is the gateway's default."""

    def with_prices(self, prices: Mapping[str, int]) -> Tier:
        """Return the tier with some of its prices, those in ``OWN_PRICES``, replaced."""
        return replace(
            self,
            price_nanousd=prices.get("price_nanousd", self.price_nanousd),
            period_price_nanousd=prices.get("period_price_nanousd", self.period_price_nanousd),
            input_nanousd_per_mtok=prices.get("input_nanousd_per_mtok", self.input_nanousd_per_mtok),
            output_nanousd_per_mtok=prices.get("output_nanousd_per_mtok", self.output_nanousd_per_mtok),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the tier's fields without those that are not set; name, price and cap are always included."""
        always = {"name", "price_nanousd", "conversation_tokens_max"}
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in always or getattr(self, field.name) is not None
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Tier:
        """Return the tier that ``given`` describes; keys that are no fields of a tier (``expected``) are ignored.

        Raises:
            NotAMenu: a name is malformed, a limit or price is not a whole number in range, or ``hangup_bills`` is not
                one of ``HANGUP_BILLS``.
        """
        name = given.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise NotAMenu("A tier's name is 1 to 64 letters, digits, dots, dashes or underscores.", "name")
        values: dict[str, Any] = {"name": name}
        for field in (*LIMIT_FIELDS, *PRICE_FIELDS):
            values[field] = whole(given.get(field), field)
        values["price_nanousd"] = values["price_nanousd"] or 0
        bills = given.get("hangup_bills")
        if bills is not None and bills not in HANGUP_BILLS:
            raise NotAMenu(f"hangup_bills is one of {', '.join(HANGUP_BILLS)}.", "hangup_bills")
        return cls(**values, hangup_bills=bills)


def own_prices(overrides: Mapping[str, int]) -> dict[str, int]:
    """Return the prices among a customer's overrides."""
    return {field: overrides[field] for field in OWN_PRICES.values() if field in overrides}


def own_version(version: str, prices: Mapping[str, int]) -> str:
    """Return a menu's version with a customer's own prices: ``v1+c900,o5`` sets those of a conversation and output."""
    if not prices:
        return version
    letters = (f"{letter}{prices[field]}" for letter, field in OWN_PRICES.items() if field in prices)
    return f"{version}+{','.join(letters)}"


def split_version(version: str) -> tuple[str, dict[str, int]]:
    """Return the menu's version and the customer's own prices, usually none, that a version states."""
    match = OWN_VERSION.fullmatch(version) if "+" in version else None
    if match is None:
        return version, {}
    return match[1], {OWN_PRICES[price[0]]: int(price[1:]) for price in match[2].split(",")}


def whole(value: Any, field: str) -> int | None:
    """Return a limit or price as a whole number, or None where it is not set.

    Raises:
        NotAMenu: the value is not a whole number from 0 (from 1 for a rate of requests or a concurrency) to ``MOST``.
    """
    if value is None:
        return None
    least = 1 if field in {"requests_per_minute", "concurrency_max"} else 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
        raise NotAMenu(f"{field} is a whole number from {least} to {MOST}.", field)
    return value


@dataclass(frozen=True, slots=True)
class Menu:
    """An immutable version of the tiers on sale, as the gateway needs it."""

    version: str
    created: str
    currency: str
    bill: str
    tiers: tuple[Tier, ...]

    def tier(self, name: str) -> Tier | None:
        """Return the tier called ``name``, or None."""
        return next((tier for tier in self.tiers if tier.name == name), None)

    def with_prices(self, prices: Mapping[str, int]) -> Menu:
        """Return the menu for a customer with these prices of its own, whatever its tier."""
        if not prices:
            return self
        tiers = tuple(tier.with_prices(prices) for tier in self.tiers)
        return replace(self, version=own_version(self.version, prices), tiers=tiers)

    def to_json(self) -> dict[str, Any]:
        """Return the public part, without costs, margins, market and certificate."""
        return {
            "version": self.version,
            "created": self.created,
            "currency": self.currency,
            "bill": self.bill,
            "tiers": [tier.to_json() for tier in self.tiers],
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Menu:
        """Return the public part of a ``menu.json``.

        Raises:
            NotAMenu: the input is no object, a field is missing or malformed, or two tiers share a name.
        """
        if not isinstance(given, Mapping):
            raise NotAMenu("A menu is an object.", "menu")
        for field in ("version", "created", "currency", "bill"):
            if not isinstance(given.get(field), str) or not given[field]:
                raise NotAMenu(f"A menu has {field}, a string.", field)
        if given["bill"] not in ("conversation", "subscription"):
            raise NotAMenu("bill is 'conversation' or 'subscription'.", "bill")
        listed = given.get("tiers")
        if not isinstance(listed, list) or not all(isinstance(tier, Mapping) for tier in listed):
            raise NotAMenu("A menu has tiers, a list of objects.", "tiers")
        tiers = tuple(Tier.from_json(tier) for tier in listed)
        if len({tier.name for tier in tiers}) != len(tiers):
            raise NotAMenu("Two tiers share a name.", "tiers")
        return cls(given["version"], given["created"], given["currency"], given["bill"], tiers)


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces; a whole number has no decimal point, whatever its type.

    So 4.0 and 4 give the same text, because programs whose only numbers are doubles cannot tell them apart.

    Raises:
        ValueError: a number is not finite.
        TypeError: something is not JSON.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, lower-case hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
