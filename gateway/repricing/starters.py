"""Starter markets: markets from which a menu may be computed before any observation, each labelled as an assumption.

The starter markets are files in ``markets``, in the form that ``tokencap price fit`` writes. Reading a file does not
load numpy, so a command that only lists the markets does not wait for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.errors import StartupError
from pricing.market.market import Market, read_market

DIRECTORY = Path(__file__).parent / "markets"


def names() -> list[str]:
    """Return the names of the starter markets."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def starter(name: str) -> dict[str, Any]:
    """Return the starter market with this name, as JSON.

    Raises:
        StartupError: there is no starter market of this name.
    """
    if name not in names():
        raise StartupError(f"There is no starter market {name[:64]!r}; there are {', '.join(names())}.", exit_code=2)
    market: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))
    return market


def starter_market(name: str) -> Market:
    """Return the starter market with this name, parsed.

    Raises:
        StartupError: there is no starter market of this name.
    """
    return read_market(starter(name))
