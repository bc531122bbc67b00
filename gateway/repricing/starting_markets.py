"""Markets to begin with before anything was seen: assumptions, marked as such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.errors import StartupError

DIRECTORY = Path(__file__).parent / "markets"


def names() -> list[str]:
    """Return what starter markets there are."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def starter(name: str) -> dict[str, Any]:
    """Return the starter market of this name.

    Raises:
        StartupError: there is none.
    """
    if name not in names():
        raise StartupError(f"There is no starter market {name[:64]!r}; there are {', '.join(names())}.", exit_code=2)
    market: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text("utf-8"))
    return market
