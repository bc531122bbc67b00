"""What the tests of one machine's parts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """A data directory with a path short enough for Valkey's socket."""
    with short_directory() as path:
        yield path / "data"
