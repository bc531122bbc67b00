"""The loop as most tests want it: one gateway, a fast simulated model, SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loop.rig import Rig, rig


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path, model_aliases=("gpt-4o",)) as running:
        yield running
