"""Compares Redis' clock with this process' own clock, which cannot jump, and notices when Redis' clock was set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import redis

from gateway.clock import APART_MS

JUMP_MS = 1_000
"""A change of Redis' clock since the last reading by no more than this counts as none: a reading takes time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks at one moment, ms since 1970."""

    here: int
    """The time that Redis' clock shows, whether or not it is right; not the time of this process."""
    now: int | None
    """The time as the scripts count it; None where the clocks have never agreed, and neither is known to be right."""
    ahead_ms: int
    """How far Redis' clock is ahead of this process'."""
    jump_ms: int
    """By how much Redis' clock was set since the previous reading; 0 where a reading's duration explains the change."""


class RedisClock:
    """Reads both clocks. While they agree, Redis' time counts; if they agreed earlier, this process' time counts."""

    def __init__(self, client: redis.Redis, now_ms: Callable[[], int]) -> None:
        self._redis = client
        self._now_ms = now_ms
        self._vouches = False
        self._ahead_ms: int | None = None

    def read(self) -> Reading:
        """Return both clocks; raises redis-py's errors."""
        seconds, micros = cast(tuple[int, int], cast(Any, self._redis.time()))
        redis_ms, own_ms = seconds * 1000 + micros // 1000, self._now_ms()
        ahead_ms = redis_ms - own_ms
        jump_ms = 0 if self._ahead_ms is None else ahead_ms - self._ahead_ms
        if abs(jump_ms) <= JUMP_MS:
            jump_ms = 0
        else:
            log.warning("Redis' clock was set by %d ms and is now %d ms from this process'", jump_ms, ahead_ms)
        self._ahead_ms = ahead_ms
        agree = abs(ahead_ms) <= APART_MS
        self._vouches |= agree
        now = redis_ms if agree else own_ms if self._vouches else None
        return Reading(redis_ms, now, ahead_ms, jump_ms)
