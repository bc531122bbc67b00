"""The one way tests wait: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.1
SHARE = 0.1
"""A pause as a share of the time waited so far: a long wait may last a tenth longer, and checks a tenth as often."""


def until(condition: Callable[[], Found], deadline_s: float = 60.0) -> Found:
    """Return the first truthy value of ``condition``.

    Raises:
        TimeoutError: the deadline passed first.
    """
    began = time.monotonic()
    while not (found := condition()):
        waited_s = time.monotonic() - began
        if waited_s > deadline_s:
            raise TimeoutError(f"still waiting after {deadline_s:g} s, last seen: {found!r}")
        time.sleep(min(max(FIRST_PAUSE_S, SHARE * waited_s), LONGEST_PAUSE_S))
    return found


def rising(read: Callable[[], float]) -> Callable[[], bool]:
    """Return a condition that is true once a number is above what it was when the condition was last checked."""
    before = read()

    def has_risen() -> bool:
        nonlocal before
        now = read()
        is_above, before = now > before, now
        return is_above

    return has_risen
