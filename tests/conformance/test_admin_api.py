"""The admin API does what its own OpenAPI says, for every request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loop.rig import Rig, rig


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    """A separate gateway: the requests of these tests change tiers and menus."""
    with rig(valkey_url, sqlite_url, tmp_path) as running:
        yield running


def test_it_answers_as_it_is_described(loop: Rig) -> None:
    """No request that the description allows, and none near it, is answered by a 500 or against the description."""
    from tests.conformance.described import answered_otherwise

    authority = {"authorization": str(loop.admin.headers["authorization"])}
    operations, wrong = answered_otherwise(f"{loop.url}/openapi.json", authority)

    assert operations > 20
    assert wrong == []
