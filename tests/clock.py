"""A monotonic clock that tests set by hand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s
