"""What becomes of an answer whose caller hung up, and how it is billed where the upstream does not say what it made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.holds.hold import Hold
from gateway.metrics.counters import Counters
from gateway.metrics.definitions import HANGUPS
from gateway.serving.meter import Count
from gateway.serving.upstream.profiles import Profile

ANSWERS_LEAST = 8
"""Answers after which the pace is known."""

TOKENS_LEAST = 16
"""Tokens of an answer that says something of it: a shorter one is mostly waiting."""

REMEMBERED = 256
"""Answers that count: an older one weighs less with each that comes."""


class GenerationSpeed:
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


DRAINED_AT_ONCE = 256
"""Answers that a worker reads on with nobody to hear them; one more is closed instead."""

DRAINED_PART = 4
"""Where calls at the upstream are limited, one place in so many, rounded down, may be held by such answers."""

GoesOn = Callable[[], float]
"""Told that the caller has left; returns for how many seconds its answer is read on, 0 for not at all."""


@dataclass(frozen=True, slots=True)
class Manners:
    """What the operator wants done once a caller has left.

    Args:
        drain_s: for how long an answer is read on.
        bills: what is billed where no figure comes: ``visible``, ``timed``, ``granted``, or None for ``timed`` once the
            model's pace is known and ``granted`` before. A tier may say otherwise.
    """

    drain_s: float
    bills: str | None


class Places:
    """How many answers may be drained at once, over all formats of a worker."""

    def __init__(self, upstream_most: int | None) -> None:
        self._free = DRAINED_AT_ONCE if upstream_most is None else min(DRAINED_AT_ONCE, upstream_most // DRAINED_PART)

    def take(self) -> bool:
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        self._free += 1


class Disconnects:
    """Decides, for all calls of a worker at one kind of upstream."""

    def __init__(
        self, profile: Profile, manners: Manners, places: Places, pace: GenerationSpeed, counters: Counters
    ) -> None:
        self._finishes = profile.finishes
        self._stops = profile.stops_on_hangup
        self._manners = manners
        self._places = places
        self._counters = counters
        self.pace = pace
        self.tells_as_it_goes = profile.continuous_usage
        """Whether each piece of the upstream's answer says how many tokens there are so far."""

    @contextmanager
    def of(self, leave: Callable[[], bool]) -> Iterator[GoesOn]:
        """Yield what is told that a call's caller has left.

        ``leave`` takes note of it and returns whether a figure is still to come: only then the answer goes on.
        """
        is_drained = False

        def goes_on() -> float:
            nonlocal is_drained
            is_drained = leave() and self._finishes and self._manners.drain_s > 0 and self._places.take()
            self._counters.add(HANGUPS, "read on" if is_drained else "closed")
            return self._manners.drain_s if is_drained else 0

        try:
            yield goes_on
        finally:
            if is_drained:
                self._places.give_back()

    def owes_unanswered(self, *, comes_whole: bool) -> bool:
        """Return whether a call owes output that its caller left before the upstream's head.

        The head of a whole answer comes when all of it is made; that of a stream comes first, and an engine that stops
        with its caller has made nothing by then.
        """
        return comes_whole or not self._stops

    def owed(self, seen: Count, hold: Hold, seconds: float) -> Count:
        """Return what is billed of an answer that ran so long and of which only what was ``seen`` is known."""
        bills = hold.facts.hangup_bills or self._manners.bills
        if bills == "visible":
            return seen
        most, timed = hold.tokens, self.pace.tokens_in(seconds)
        if bills == "granted" or timed is None:
            return Count(most, most, "granted")
        tokens = min(max(seen.billed_output_tokens, timed * hold.facts.choices), most)
        return Count(tokens, tokens, "timed")
