"""The time of day goes on evenly where the machine's clock is set, and follows it once that has gone on for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gateway.clock import SETTLED_S, SteadyClock

DAY_S = 86_400


@dataclass
class Machine:
    """Both clocks of a machine, ns."""

    day: int = 1_800_000_000 * 10**9
    up: int = 5 * 10**9

    def wait(self, seconds: float) -> None:
        self.day += int(seconds * 10**9)
        self.up += int(seconds * 10**9)

    def set(self, seconds: float) -> None:
        self.day += int(seconds * 10**9)


def steady(machine: Machine) -> Callable[[], int]:
    return SteadyClock(lambda: machine.day, lambda: machine.up).now_ms


@pytest.mark.parametrize("jump_s", [-400 * DAY_S, -7200, -6, 6, 3600, 45 * DAY_S, 400 * DAY_S])
def test_a_clock_that_is_set_is_not_followed_at_once(jump_s: float) -> None:
    machine = Machine()
    clock = steady(machine)
    began = clock()
    machine.set(jump_s)
    machine.wait(12)
    assert clock() == began + 12_000
    machine.set(-jump_s)
    machine.wait(1)

    assert clock() == began + 13_000


@pytest.mark.parametrize("jump_s", [-7200, 45 * DAY_S])
def test_a_clock_that_stays_where_it_was_set_is_followed_in_the_end(jump_s: float) -> None:
    machine = Machine()
    clock = steady(machine)
    began = clock()
    machine.set(jump_s)
    clock()
    machine.wait(SETTLED_S - 1)
    assert clock() == began + (SETTLED_S - 1) * 1000
    machine.wait(1)
    clock()

    assert clock() == began + (SETTLED_S + jump_s) * 1000


def test_a_clock_that_is_corrected_by_little_is_followed_at_once() -> None:
    """So it is by NTP; however often, it is never taken for a jump."""
    machine = Machine()
    clock = steady(machine)
    began = clock()
    for _ in range(10):
        machine.set(4)
        clock()

    assert clock() == began + 40_000
