"""The options of ``tokencap price menu``, each with its words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

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
    typer.Option("--robust/--no-robust", help="Best on average over markets near this one; so for estimated ones."),
]
SurplusMin = Annotated[str | None, typer.Option(metavar="TIER=NANOUSD,…", help="What who takes a tier keeps at least.")]
SurplusWeight = Annotated[float, typer.Option(min=0, max=1, help="What customers keep counts so much beside profit.")]
Tiers = Annotated[int | None, typer.Option(min=1, help="At most so many tiers; else the full menu.")]
Today = Annotated[Path | None, typer.Option(metavar="MENU", help="Today's menu.json.")]
WorseOffMax = Annotated[
    float | None, typer.Option(min=0, max=1, help="The share that may be worse off than with the menu of --today.")
]
