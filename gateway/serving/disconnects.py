"""Decides whether an answer whose caller hung up is read on, and what is billed where the upstream has no figure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gateway.holds.hold import Hold
from gateway.metrics.counters import Counters
from gateway.metrics.definitions import HANGUPS
from gateway.serving.meter import Count
from gateway.serving.upstream.profiles import Profile

ANSWERS_LEAST = 8
"""The number of answers after which the pace is known."""

TOKENS_LEAST = 16
"""The least tokens of an answer that shows the pace: a shorter answer is mostly waiting."""

REMEMBERED = 256
"""The number of answers that count: an older answer weighs less with each new answer."""


class GenerationSpeed:
    """All tokens over all seconds: over many calls, bills by this pace add up to what was made, whichever were fast."""

    def __init__(self) -> None:
        self._answers = 0
        self._tokens = 0.0
        self._seconds = 0.0

    def note(self, tokens: float, seconds: float) -> None:
        """Note a counted answer: the tokens of one choice, and the time from the request to the answer's end."""
        if tokens < TOKENS_LEAST or seconds <= 0:
            return
        decay = 1 - 1 / REMEMBERED
        self._answers += 1
        self._tokens = self._tokens * decay + tokens
        self._seconds = self._seconds * decay + seconds

    def tokens_in(self, seconds: float) -> int | None:
        """Return how many tokens a choice has after that time, or None while the pace is unknown."""
        if self._answers < ANSWERS_LEAST:
            return None
        return math.ceil(seconds * self._tokens / self._seconds)


DRAINED_AT_ONCE = 256
"""The most answers that a worker reads on without a caller; any further answer is closed."""

DRAINED_PART = 4
"""Where concurrency at the upstream is limited, such answers may have one place in this many, rounded down."""


@dataclass(frozen=True, slots=True)
class Manners:
    """The operator's settings for callers that leave.

    Args:
        drain_s: how long an answer is read on.
        bills: what is billed where no figure comes: ``visible``, ``timed``, ``granted``, or None for ``timed`` once the
            model's pace is known and ``granted`` before. A tier may set it otherwise.
    """

    drain_s: float
    bills: str | None


class Places:
    """How many answers may be drained at once, over all dialects of a worker."""

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
    """Decides what becomes of answers whose callers left, for all calls of a worker at one kind of upstream."""

    def __init__(
        self, profile: Profile, manners: Manners, places: Places, pace: GenerationSpeed, counters: Counters
    ) -> None:
        self._finishes = profile.finishes
        self._stops = profile.stops_on_hangup
        self._manners = manners
        self._places = places
        self._counters = counters
        self.pace = pace
        self.has_continuous_usage = profile.continuous_usage
        """Whether each piece of the upstream's answer has a running count of its tokens."""

    def read_on_s(self, *, is_awaited: bool) -> float:
        """Return for how many seconds an answer is read on after its caller has left, 0 for not at all.

        It is read on only where its figure is still to come: ``is_awaited``. Then it has a place, until ``ends``.
        """
        is_drained = is_awaited and self._finishes and self._manners.drain_s > 0 and self._places.take()
        self._counters.add(HANGUPS, "read on" if is_drained else "closed")
        return self._manners.drain_s if is_drained else 0

    def ends(self) -> None:
        """Free the place of an answer that was read on."""
        self._places.give_back()

    def owes_unanswered(self, *, comes_whole: bool) -> bool:
        """Return whether a call owes output where its caller left before the upstream's head.

        The head of a whole answer comes when all of the answer is made; the head of a stream comes first, and an engine
        that stops with its caller has made nothing by then.
        """
        return comes_whole or not self._stops

    def owed(self, observed: Count, hold: Hold, seconds: float) -> Count:
        """Return what is billed for an answer that ran for ``seconds``, where only the ``observed`` count is known."""
        bills = hold.facts.hangup_bills or self._manners.bills
        if bills == "visible":
            return observed
        most, timed = hold.tokens, self.pace.tokens_in(seconds)
        if bills == "granted" or timed is None:
            return Count(most, most, "granted")
        tokens = min(max(observed.billed_output_tokens, timed * hold.facts.choices), most)
        return Count(tokens, tokens, "timed")
