"""A short soak in both ways of asking: a quarter of a minute each, where ``make soak`` takes an hour or two."""

from __future__ import annotations

import pytest

from tests.faults.soak import WAYS, soak


@pytest.mark.parametrize("way", WAYS)
def test_no_promise_is_broken_while_processes_are_killed(way: str) -> None:
    assert soak(calls=150, kills=6, seed=3, way=way) == []
