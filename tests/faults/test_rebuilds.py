"""Rebuilds killed at random points, alone and three at a time, end in the same state as an undisturbed rebuild."""

from __future__ import annotations

import random

import pytest

from gateway.holds.store.clients import connect
from gateway.ledger.database import Database
from tests.faults.rebuilds import House, disturbed, fill


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_rebuild_that_is_killed_again_and_again_converges(
    valkey_url: str, database: Database, ledger_url: str, at_once: int
) -> None:
    """For fifty kills run ``python -m tests.faults.rebuilds --kills 50``."""
    draw = random.Random(at_once)
    fill(database, draw)
    with connect(valkey_url) as client:
        house = House(valkey_url, ledger_url, client)

        assert disturbed(house, draw, kills=3, at_once=at_once) >= 3
