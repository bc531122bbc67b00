"""How fast the model writes, by the answers of this house that came to their end."""

from __future__ import annotations

import math

ANSWERS_LEAST = 8
"""Answers after which the pace is known."""

TOKENS_LEAST = 16
"""Tokens of an answer that says something of it: a shorter one is mostly waiting."""

REMEMBERED = 256
"""Answers that count: an older one weighs less with each that comes."""


class Pace:
    """All tokens over all seconds, so that what is billed by it comes to what was made over many calls, whichever were fast."""

    def __init__(self) -> None:
        self._answers = 0
        self._tokens = 0.0
        self._seconds = 0.0

    def note(self, tokens: float, seconds: float) -> None:
        """Take note of an answer that was counted: the tokens of one choice, and the time from asking to its end."""
        if tokens < TOKENS_LEAST or seconds <= 0:
            return
        left = 1 - 1 / REMEMBERED
        self._answers += 1
        self._tokens = self._tokens * left + tokens
        self._seconds = self._seconds * left + seconds

    def tokens_in(self, seconds: float) -> int | None:
        """Return how many tokens a choice has after so long, or None while that is not known."""
        if self._answers < ANSWERS_LEAST:
            return None
        return math.ceil(seconds * self._tokens / self._seconds)
