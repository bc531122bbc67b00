"""Decides whether an answer whose caller hung up is read on, and the bill where the upstream reports no figure."""

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
"""The fewest tokens of an answer that counts for the pace: a shorter answer is mostly waiting."""

REMEMBERED = 256
"""Each new answer takes 1/REMEMBERED off the weight of all earlier answers."""


class GenerationSpeed:
    """The model's pace, all tokens over all seconds: over many calls, bills by this pace add up to the tokens made."""

    def __init__(self) -> None:
        self._answers = 0
        self._tokens = 0.0
        self._seconds = 0.0

    def note(self, tokens: float, seconds: float) -> None:
        """Add a counted answer: the tokens of one choice, and the time from the request to the answer's end."""
        if tokens < TOKENS_LEAST or seconds <= 0:
            return
        decay = 1 - 1 / REMEMBERED
        self._answers += 1
        self._tokens = self._tokens * decay + tokens
        self._seconds = self._seconds * decay + seconds

    def tokens_in(self, seconds: float) -> int | None:
        """Return how many tokens a choice has after ``seconds``, or None while the pace is unknown."""
        if self._answers < ANSWERS_LEAST:
            return None
        return math.ceil(seconds * self._tokens / self._seconds)


DRAINED_AT_ONCE = 256
"""The most answers that a worker reads on without a caller at a time; further answers are closed."""

DRAINED_PART = 4
"""Where concurrency at the upstream is limited, such answers may take one in this many of its places, rounded down."""


@dataclass(frozen=True, slots=True)
class Manners:
    """The operator's settings for callers that leave.

    Args:
        drain_s: the longest time for which an answer is read on.
        bills: what is billed where no figure comes: ``visible``, ``timed`` or ``granted``. None is ``timed``. While the
            model's pace is unknown, ``timed`` bills as ``granted``. A tier may set a value of its own.
    """

    drain_s: float
    bills: str | None


class Places:
    """The number of answers that may be read on at once, over all dialects of a worker."""

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
    """Decides about the answers whose callers left, for all calls of a worker to one kind of upstream."""

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
        """Whether each piece of the upstream's answer can carry a running count of its tokens."""

    def read_on_s(self, *, is_awaited: bool) -> float:
        """Return for how many seconds an answer is read on after its caller has left, 0 if it is not read on.

        An answer is read on only where its figure is still to come: ``is_awaited``. It then has a place until ``ends``.
        """
        is_drained = is_awaited and self._finishes and self._manners.drain_s > 0 and self._places.take()
        self._counters.add(HANGUPS, "read on" if is_drained else "closed")
        return self._manners.drain_s if is_drained else 0

    def ends(self) -> None:
        """Free the place of an answer that was read on."""
        self._places.give_back()

    def owes_unanswered(self, *, comes_whole: bool) -> bool:
        """Return whether a call owes output if its caller left before the upstream's head.

        The head of a whole answer comes after all of the answer is generated. The head of a stream comes first, and an
        engine that stops when its caller hangs up has generated nothing by then.
        """
        return comes_whole or not self._stops

    def owed(self, observed: Count, hold: Hold, seconds: float) -> Count:
        """Return the count that is billed for an answer that ran for ``seconds``, where only ``observed`` is known."""
        bills = hold.facts.hangup_bills or self._manners.bills
        if bills == "visible":
            return observed
        most, timed = hold.tokens, self.pace.tokens_in(seconds)
        if bills == "granted" or timed is None:
            return Count(most, most, "granted")
        tokens = min(max(observed.billed_output_tokens, timed * hold.facts.choices), most)
        return Count(tokens, tokens, "timed")
