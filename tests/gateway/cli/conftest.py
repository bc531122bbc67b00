"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import short_directory


@pytest.fixture
def directory() -> Iterator[Path]:
    """A data directory that does not exist yet, in a directory of its own."""
    with short_directory() as path:
        yield path / "data"
