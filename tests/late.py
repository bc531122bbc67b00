"""Libraries that are loaded at their first use.

Each process of a run reads every file of tests, and a client's library takes a second to load.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Library:
    """A module that is loaded when one of its names is first read."""

    def __init__(self, name: str) -> None:
        self._module = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pytest reads a few such names of every object in a file of tests
            raise AttributeError(name)
        return getattr(import_module(self._module), name)
