"""Menus of token caps and prices, from a market to a certificate; a library that does no I/O."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pricing.library import (
        CannotEstimate,
        Fit,
        Frontier,
        Market,
        Menu,
        NotAMarket,
        NotAMenu,
        compare_models,
        fit,
        frontier,
        optimal_menu,
    )

__all__ = [
    "CannotEstimate",
    "Fit",
    "Frontier",
    "Market",
    "Menu",
    "NotAMarket",
    "NotAMenu",
    "compare_models",
    "fit",
    "frontier",
    "optimal_menu",
]


def __getattr__(name: str) -> Any:
    """Return a name of the library; numpy loads with the first of them, not with the package."""
    if name in __all__:
        return getattr(import_module("pricing.library"), name)
    raise AttributeError(f"module 'pricing' has no attribute {name!r}")
