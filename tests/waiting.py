"""The one way tests wait: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found], deadline_s: float = 60.0, pause_s: float = 0.005) -> Found:
    """Return the first truthy value of ``condition``.

    Raises:
        TimeoutError: the deadline passed first.
    """
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"still waiting after {deadline_s:g} s, last seen: {found!r}")
        time.sleep(pause_s)
    return found
