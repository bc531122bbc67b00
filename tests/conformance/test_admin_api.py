"""The admin API does what its own OpenAPI says, whatever is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loop.rig import Rig, rig


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    """A gateway of its own: what is asked here changes tiers and menus."""
    with rig(valkey_url, sqlite_url, tmp_path) as running:
        yield running


def test_it_answers_as_it_is_described(loop: Rig) -> None:
    """Nothing that the description allows, and nothing near it, is a 500 or answered otherwise than it says."""
    from tests.conformance.described import answered_otherwise

    authority = {"authorization": str(loop.admin.headers["authorization"])}
    operations, wrong = answered_otherwise(f"{loop.url}/openapi.json", authority)

    assert operations > 20
    assert wrong == []
