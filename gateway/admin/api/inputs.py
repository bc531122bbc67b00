"""Types of inputs: bodies without unknown fields, whole numbers, times, text that every database can store."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from gateway.clock import understood
from gateway.ledger.billing.closings import is_month
from pricing.menus.menu import LIMIT_FIELDS, NAME, OWN_PRICES, own_prices, own_version
from pricing.money import MOST


class Input(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", strict=True)


def unset() -> Any:
    """Return a placeholder for an omitted field; ``model_fields_set`` says whether the field was omitted."""


def _one_line(text: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError("This is one line of text, without control characters.")
    return text


def _tier_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("A tier's name is 1 to 64 letters, digits, dots, dashes or underscores.")
    return text


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("This is not an IANA time zone, such as 'Europe/Berlin' or 'UTC'.")
    return name


def _month(text: str) -> str:
    if not is_month(text):
        raise ValueError("A month is written as 2026-10.")
    return text


MonthName = Annotated[str, AfterValidator(_month)]
OneLine = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_one_line)
]
TierName = Annotated[str, AfterValidator(_tier_name)]
Zone = Annotated[str, AfterValidator(_zone)]
WholeNumber = Annotated[int, Field(ge=0, le=MOST)]
Positive = Annotated[int, Field(ge=1, le=MOST)]


def _rising(percents: list[int]) -> list[int]:
    if percents != sorted(set(percents)):
        raise ValueError("Percents must increase, without repetition.")
    return percents


Percents = Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(max_length=10), AfterValidator(_rising)]


class Limits(Input):
    """The limits that a tier sets and a customer's `overrides` may replace. An omitted limit does not apply."""

    conversation_tokens_max: WholeNumber | None = Field(
        default=None, description="The cap: billed output tokens of one conversation.", examples=[4000]
    )
    period_tokens_max: WholeNumber | None = Field(
        default=None, description="Billed output tokens of one period.", examples=[1_000_000]
    )
    conversation_input_tokens_max: WholeNumber | None = Field(
        default=None, description="Input tokens of one conversation.", examples=[100_000]
    )
    requests_per_minute: Positive | None = Field(default=None, description="The most calls per minute.", examples=[60])
    concurrency_max: Positive | None = Field(default=None, description="The most calls at the same time.", examples=[4])
    spend_nanousd_max: WholeNumber | None = Field(
        default=None, description="Charges of one period, in nano-units: 10^9 are 1 USD.", examples=[50_000_000_000]
    )
    end_user_period_tokens_max: WholeNumber | None = Field(
        default=None,
        description="Billed output tokens of one period of each end user, as calls name them in `user`.",
        examples=[100_000],
    )

    def set_limits(self) -> dict[str, int]:
        """Return the limits that are set."""
        limits = {name: getattr(self, name) for name in LIMIT_FIELDS}
        return {name: value for name, value in limits.items() if value is not None}


class Overrides(Limits):
    """A customer's own limits and prices. They replace those of its tier, whichever tier it has."""

    price_nanousd: WholeNumber | None = Field(
        default=None, description="The price of one conversation.", examples=[15_000_000]
    )
    period_price_nanousd: WholeNumber | None = Field(
        default=None, description="The fee for each period: a subscription."
    )
    input_nanousd_per_mtok: WholeNumber | None = Field(default=None, description="The rate per million input tokens.")
    output_nanousd_per_mtok: WholeNumber | None = Field(
        default=None, description="The rate per million billed output tokens."
    )

    @model_validator(mode="after")
    def _fits(self) -> Overrides:
        if len(own_version("", own_prices(self.to_dict()))) > OWN_VERSION_MOST:
            raise ValueError("These prices have too many digits for the version of a menu.")
        return self

    def to_dict(self) -> dict[str, int]:
        """Return the limits and prices that are set."""
        values = {name: getattr(self, name) for name in (*LIMIT_FIELDS, *OWN_PRICES.values())}
        return {name: value for name, value in values.items() if value is not None}


OWN_VERSION_MOST = 64
"""The most characters that a customer's own prices add to a menu's version; the version alone has at most as many."""

EXAMPLE = "2026-11-01T00:00:00.000Z"

Moment = Annotated[str, Field(examples=[EXAMPLE], json_schema_extra={"format": "date-time"})]
"""A time in an answer."""

InputMoment = Annotated[
    int,
    BeforeValidator(understood),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": 0, "description": "Milliseconds since 1970, UTC."},
            ],
            "examples": [EXAMPLE],
        }
    ),
]
"""A time in a request."""
