"""Runs what depends on the event loop on both kinds: they differ in what a write to a lost connection does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the loops that a test runs on, one after the other."""
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return (
        both
        if item.path.stem in ("test_connection", "test_transports", "test_pouring")
        else {"asyncio": asyncio.new_event_loop}
    )
