"""The options of ``tokencap price menu``, and the request that they make; a wrong option is refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.cli.file_arguments import read_object
from gateway.errors import StartupError
from pricing.market.fields import NotAMarket
from pricing.menus.menu import NotAMenu

NEAR = {"pace": 0.02, "length": 0.02, "urgency": 0.1, "value_sigma": 0.1, "loss_max": 0.02, "single_share_min": 0.97}
"""How far a market may be from the assumed market, and the limits of a robust menu, unless ``--near`` differs."""

OPTIONS = {
    "price_nanousd_max": "--price-max",
    "surplus_nanousd_min": "--surplus-min",
    "terms": "--price-max and --surplus-min",
    "worse_off": "--worse-off-max and --today",
    "conversation_tokens_max": "--today",
    "price_nanousd": "--today",
}
"""The options of fields that have another name in a menu."""


def further_of(
    *,
    surplus_weight: float,
    everyone: bool,
    robust: bool,
    near: str | None,
    price_max: str | None,
    surplus_min: str | None,
    worse_off_max: float | None,
    today: Path | None,
) -> dict[str, Any]:
    """Return the options that only some menus have.

    Raises:
        StartupError: an option is malformed, or of two options that belong together one is missing.
    """
    request: dict[str, Any] = {"surplus_weight": surplus_weight, "everyone": everyone}
    if robust:
        request["robust"] = NEAR | _numbers("--near", near, float)
    elif near is not None:
        raise StartupError("--near says how far a --robust menu looks; this menu is not robust.", exit_code=2)
    highest, least = _by_tier("--price-max", price_max), _by_tier("--surplus-min", surplus_min)
    request["terms"] = [
        {"tier": tier}
        | ({"price_nanousd_max": highest[tier]} if tier in highest else {})
        | ({"surplus_nanousd_min": least[tier]} if tier in least else {})
        for tier in sorted(highest.keys() | least.keys())
    ]
    if (worse_off_max is None) != (today is None):
        raise StartupError("--worse-off-max and --today belong together.", exit_code=2)
    if worse_off_max is not None and today is not None:
        request["worse_off"] = {"share_max": worse_off_max, "today": read_object(today, "--today").get("tiers")}
    return request


def option_of(error: NotAMarket | NotAMenu) -> str:
    """Return the option that caused an error."""
    if isinstance(error, NotAMarket):
        return "--near"
    return OPTIONS.get(error.field, f"--{error.field.replace('_', '-')}")


def tiers_of(market: Mapping[str, Any]) -> int | None:
    """Return how many tiers an estimated market bears; None for the full menu or a market that was not estimated."""
    estimate = market.get("estimate")
    tiers = estimate.get("tiers") if isinstance(estimate, Mapping) else None
    return tiers if isinstance(tiers, int) and not isinstance(tiers, bool) else None


def is_estimated(market: Mapping[str, Any]) -> bool:
    """Return whether a market was estimated and has draws, over which a robust menu is chosen."""
    estimate = market.get("estimate")
    return isinstance(estimate, Mapping) and bool(estimate.get("draws"))


def _by_tier(option: str, text: str | None) -> dict[int, int]:
    return {int(tier): amount for tier, amount in _numbers(option, text, int).items()}


def _numbers(option: str, text: str | None, number_type: type[int] | type[float]) -> dict[Any, Any]:
    """Return ``a=1,b=2`` as a mapping."""
    numbers: dict[Any, Any] = {}
    for pair in text.split(",") if text else ():
        name, equals, number = (part.strip() for part in pair.partition("="))
        try:
            if (
                not equals
                or name in numbers
                or (number_type is int and not name.isdecimal())
                or (number_type is float and name not in NEAR)
            ):
                raise ValueError(pair)
            numbers[name] = number_type(number)
        except ValueError as error:
            names = "the tiers' places, 1 the smallest" if number_type is int else f"any of {', '.join(NEAR)}"
            raise StartupError(f"{option} is written a=number,b=number with {names}.", exit_code=2) from error
    return numbers


Bill = Annotated[Literal["conversation", "subscription"], typer.Option(help="What is paid for.")]
Everyone = Annotated[bool, typer.Option("--everyone", help="Every type is served.")]
MarketFile = Annotated[Path, typer.Option(metavar="PATH|-", help="market.json; - is standard input.")]
MenuOut = Annotated[Path, typer.Option(metavar="PATH|-", help="Where menu.json goes; - is standard output.")]
Names = Annotated[
    str | None, typer.Option(metavar="A,B,…", help="Names of the tiers, the smallest first; else t1, t2, …")
]
Near = Annotated[
    str | None, typer.Option(metavar="WHAT=SHARE,…", help="How near: pace, length, urgency, value_sigma; loss_max, …")
]
Objective = Annotated[
    Literal["profit", "profit_if_resumed"],
    typer.Option(help="Best for callers who buy once, or who send cut answers back where that pays."),
]
PriceMax = Annotated[
    str | None, typer.Option(metavar="TIER=NANOUSD,…", help="A tier's highest price; 1 is the smallest tier.")
]
Robust = Annotated[
    bool | None,
    typer.Option(
        "--robust/--no-robust", help="Best on average over nearby markets; the default for estimated markets."
    ),
]
SurplusMin = Annotated[
    str | None, typer.Option(metavar="TIER=NANOUSD,…", help="The least that a tier's customers keep.")
]
SurplusWeight = Annotated[float, typer.Option(min=0, max=1, help="The weight of what customers keep, beside profit.")]
Tiers = Annotated[int | None, typer.Option(min=1, help="At most so many tiers; else the full menu.")]
Today = Annotated[Path | None, typer.Option(metavar="MENU", help="Today's menu.json.")]
WorseOffMax = Annotated[
    float | None, typer.Option(min=0, max=1, help="The share that may be worse off than with the menu of --today.")
]
