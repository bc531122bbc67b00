"""A short soak: what ``make soak`` does for an hour, for a quarter of a minute."""

from __future__ import annotations

from tests.faults.soak import soak


def test_no_promise_is_broken_while_processes_are_killed() -> None:
    assert soak(calls=150, kills=6, seed=3) == []
