"""From usage records to sums over conversations, one record at a time; standard library only.

The sums are plain tables, ``{key: amounts}``, so that they can be kept in SQL and added to as records come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import log2
from typing import Any

IDLE_MS = 3_600_000
LONGEST_MS = 86_400_000
"""A conversation ends an hour after its last call, a day after its first."""

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS

DURATION_MS_MOST = DAY_MS
"""A call that took longer than a day saw its clock jump."""

TIME_MS_MOST = 253_402_300_799_999
"""The end of the year 9999, the last that a calendar has."""

TOKENS_AT_ONCE, TOKENS_A_MS = 10_000, 50
"""No model makes more tokens of one choice than so many, and so many more each millisecond: a figure above that is a fault,
and one of these would be all that is known of lengths and speed."""

EARLY_MS = 5_000
"""Where the patience of a customer is cut in two, to see whether it leaves at the same rate before and after."""

UNTIMED_MS = 25_000
"""Until here no usual client gives up by itself; where some do later, a wait still counts so far."""

AGES = 700
"""Seconds of a wait that are told apart; the last stands for all beyond."""

WINDOWS_MOST = 4
"""Into so many windows of whole weeks the time is cut at most, to see whether customers have changed."""

AMOUNTS = 9
"""Amounts of a customer in ``Sums.customers``."""

POOLED_MOST = 100
"""Conversations of one customer that are pooled with those of others in a week, to tell lengths, waits and speed. A program
that hangs up a million times would be all that is seen there, and in a pool nobody can be set aside afterwards."""

BINS_A_DOUBLING = 4
"""Bins of length that a customer's own answers are counted by: each ends 19 % further than the one before."""

NOT_CONVERSATIONS = frozenset({"/v1/embeddings"})

IMPOSSIBLE_TIMES = "conversations_of_impossible_times"
UNKNOWN_ENDING = "conversations_of_unknown_ending"
IMPOSSIBLE_TOKENS = "conversations_of_impossible_tokens"


class CannotEstimate(ValueError):
    """The records do not tell what was asked; the message is one sentence that says why."""


class Ending(Enum):
    """What the end of a conversation says of the length of its answer."""

    OBSERVED = "observed"
    CENSORED = "censored"
    OPEN = "open"


_CUT = frozenset(
    {"cap", "caller_limit", "period", "context", "disconnect", "filtered", "upstream_error", "shutdown", "recovered"}
)
_ENDINGS = _CUT | {"complete", "tool_calls"}

UNHEARD = frozenset({"drained", "timed", "granted"})
"""Counts of what was made when nobody listened any more: the time of such a record is its caller's, its tokens are not."""

DRAINED, GRANTED = "drained", "granted"
"""Endings of conversations that were left: of one the whole length is known, of the other nothing of it."""

LEFT = frozenset({"disconnect", DRAINED, GRANTED})


def ending_of(finish: str, billed_tokens: int, cap_tokens: int | None) -> Ending:
    """Return what a conversation's last record says of the length of its answer.

    An answer that ended by itself is an observation of its length. One that was cut is longer than what was billed,
    by how much is not known: it is censored there, as is any that took its whole cap, whatever its last record says.
    Tool calls are no ending; the conversation goes on. Answers cut by a fault are cut without regard to their
    length, so they are censored as well.

    Args:
        finish: ``finish`` of the conversation's last usage record, as ``finish_in`` reads it.
        billed_tokens: tokens billed for all its calls.
        cap_tokens: the conversation's cap, None where there is none.

    Raises:
        CannotEstimate: the finish is none of the known ones.
    """
    if finish in ("tool_calls", GRANTED):
        return Ending.OPEN
    if finish in _CUT or (finish == "complete" and cap_tokens is not None and billed_tokens >= cap_tokens):
        return Ending.CENSORED
    if finish in ("complete", DRAINED):
        return Ending.OBSERVED
    raise CannotEstimate(f"finish {finish!r} is not known.")


@dataclass(slots=True)
class Going:
    """A conversation that may go on. Times are ms since 1970; the wait for its last call is not in any sum yet."""

    customer: str
    conversation: str
    first: int
    last: int
    tier: str
    menu_version: str
    chosen: bool
    """Whether the tier was named for this conversation alone."""
    tokens: int
    waited_ms: int
    early_ms: int
    untimed_ms: int
    at: int
    record: str
    finish: str
    duration_ms: int
    fault: str = ""
    """Why it is set aside; empty if it is not."""

    def is_open(self, now_ms: int) -> bool:
        return now_ms - self.first < LONGEST_MS and now_ms - self.last < IDLE_MS


Key = tuple[Any, ...]
Table = dict[Key, list[int]]


@dataclass(slots=True)
class Sums:
    """What is kept of all records, by tables of whole numbers that add up; every table's key begins with the week.

    Attributes:
        lengths: (week, menu version, tier, tokens) to conversations that ended there by themselves, and that were cut;
            of each customer ``POOLED_MOST`` a week.
        own_lengths: (week, customer, menu version, tier, whether the day's number since 1970 is even, ``length_bin``) to
            conversations that ended there by themselves, and that were cut; of the same conversations.
        customers: (week, customer) to conversations, disconnects, ms waited; disconnects and ms within the first
            ``EARLY_MS`` of each wait; the same of days whose number since 1970 is even; the same within the first
            ``UNTIMED_MS`` of each wait.
        tiers: (week, customer, menu version, tier, whether it was named for the conversation) to conversations.
        ages: (week, age in s) to waits that ended at this age, those of them that were disconnects, ms into that second;
            of the same conversations.
        pace: (week,) to streamed calls, ms to the first token, its square, tokens after it, its square, ms after
            it, its square, tokens times ms; of each customer about as many.
        aside: (week, reason) to how many.
    """

    lengths: Table = field(default_factory=dict)
    own_lengths: Table = field(default_factory=dict)
    customers: Table = field(default_factory=dict)
    tiers: Table = field(default_factory=dict)
    ages: Table = field(default_factory=dict)
    pace: Table = field(default_factory=dict)
    aside: Table = field(default_factory=dict)


def finish_in(record: Mapping[str, Any]) -> str:
    """Return how a call ended, and of one that its caller left what its tokens say of the answer's length.

    An answer that was read on to its end is known whole, unless that end was its grant; of one that was billed its grant
    nothing is known; one that was billed its time is cut there, as one that was billed what went by.
    """
    finish, source = record["finish"] or "", record.get("usage_source")
    if finish != "disconnect" or source not in (DRAINED, GRANTED):
        return finish
    granted = (record.get("cap_tokens") or 0) * (record.get("choices") or 1)
    return finish if source == DRAINED and 0 < granted <= record["output_tokens"] else source


def is_of_a_conversation(record: Mapping[str, Any]) -> bool:
    """Return whether a record tells of a conversation: calls and their corrections do, fees, credits, embeddings not."""
    return (
        record["kind"] in ("usage", "correction")
        and record["conversation"] is not None
        and record["endpoint"] not in NOT_CONVERSATIONS
    )


class Watch:
    """Takes in usage records and adds up the conversations that have ended.

    Records may come somewhat out of order, as they are settled: each finds its conversation by its customer, its name
    and its time. A name that comes back after its conversation ended is another conversation.

    Args:
        going: the conversations that were open when an earlier watch stopped.
        counted: (week, customer) to the conversations that it and its like have added up before.
    """

    def __init__(self, going: Iterable[Going] = (), counted: Mapping[tuple[int, str], int] | None = None) -> None:
        self.sums = Sums()
        self.counted = counted or {}
        self.paced: dict[tuple[int, str], int] = {}
        self.going = {(one.customer, one.conversation): one for one in going}
        self.latest_ms = 0

    def see(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take in some records."""
        for record in sorted(records, key=lambda one: (one["time"], one["id"])):
            if is_of_a_conversation(record):
                self._see(record)
                self.latest_ms = max(self.latest_ms, record["settled"] or record["time"])

    def _see(self, record: Mapping[str, Any]) -> None:
        key = record["customer"], record["conversation"]
        time, fault = record["time"], fault_of(record)
        duration = 0 if fault == IMPOSSIBLE_TIMES else record["duration_ms"] or 0
        if record["stream"] and not fault and record["kind"] == "usage" and record.get("usage_source") not in UNHEARD:
            self._pace(record)
        known = self.going.get(key)
        if known is not None and not known.is_open(time) and time > known.last:
            self._close(self.going.pop(key))
            known = None
        if known is None:
            self.going[key] = _begun(record, duration, fault)
        else:
            self._goes_on(known, record, duration, fault)

    def _goes_on(self, known: Going, record: Mapping[str, Any], duration: int, fault: str) -> None:
        """Add a call to its conversation; of two calls the later one's ending counts, the other is a wait served."""
        is_later = (record["time"], record["id"]) >= (known.at, known.record)
        week = known.first // WEEK_MS
        _add(self.sums.ages, (week, *_age(known.duration_ms if is_later else duration)), left=False)
        if is_later:
            known.at, known.record = record["time"], record["id"]
            known.finish, known.duration_ms = finish_in(record), duration
        known.first = min(known.first, record["time"])
        known.last = max(known.last, record["time"], record["settled"] or 0)
        known.tokens += record["billed_output_tokens"]
        known.waited_ms += duration
        known.early_ms += min(duration, EARLY_MS)
        known.untimed_ms += min(duration, UNTIMED_MS)
        known.chosen = known.chosen or record["tier_chosen"] is not None
        known.fault = known.fault or fault

    def _pace(self, record: Mapping[str, Any]) -> None:
        first, duration, tokens = record["ttft_ms"], record["duration_ms"], record["output_tokens"]
        if first is None or duration is None or tokens < 1:
            return
        x, y = tokens - 1, duration - first
        whose = record["time"] // WEEK_MS, record["customer"]
        before = max(self.paced.get(whose, 0), self.counted.get(whose, 0))
        if before >= POOLED_MOST:
            return
        self.paced[whose] = before + 1
        _sum(self.sums.pace, whose[:1], (1, first, first * first, x, x * x, y, y * y, x * y))

    def close_ended(self, now_ms: int) -> list[Going]:
        """Add up the conversations that have ended by ``now_ms``, and return them."""
        ended = [one for one in self.going.values() if not one.is_open(now_ms)]
        for one in ended:
            self._close(self.going.pop((one.customer, one.conversation)))
        return ended

    def close_all(self) -> int:
        """Add up all conversations as they stand, also those that may go on; return how many of those there are."""
        still = sum(one.is_open(self.latest_ms) for one in self.going.values())
        for one in self.going.values():
            self._close(one)
        self.going.clear()
        return still

    def _close(self, one: Going) -> None:
        """Add up a conversation. One that no token came of says nothing of lengths; its customer waited all the same."""
        sums, week = self.sums, one.first // WEEK_MS
        if one.fault:
            _sum(sums.aside, (week, one.fault), (1,))
            return
        left = one.finish in LEFT
        early, untimed = (left and one.duration_ms < end for end in (EARLY_MS, UNTIMED_MS))
        even = (one.first // DAY_MS) % 2 == 0
        waits = (left, one.waited_ms, early, one.early_ms, left and even, one.waited_ms if even else 0)
        _sum(sums.customers, (week, one.customer), (1, *map(int, waits), int(untimed), one.untimed_ms))
        _sum(sums.tiers, (week, one.customer, one.menu_version, one.tier, int(one.chosen)), (1,))
        if self.counted.get((week, one.customer), 0) + sums.customers[week, one.customer][0] > POOLED_MOST:
            return
        _add(sums.ages, (week, *_age(one.duration_ms)), left=left)
        ending = ending_of(one.finish, one.tokens, None)
        if ending is not Ending.OPEN and one.tokens > 0:
            observed = ending is Ending.OBSERVED
            counts = int(observed), int(not observed)
            _sum(sums.lengths, (week, one.menu_version, one.tier, one.tokens), counts)
            own = week, one.customer, one.menu_version, one.tier, int(even), length_bin(one.tokens)
            _sum(sums.own_lengths, own, counts)


def fault_of(record: Mapping[str, Any]) -> str:
    """Return why a record's conversation cannot be counted, empty if it can."""
    duration, first = record["duration_ms"] or 0, record["ttft_ms"]
    settled = record["settled"]
    if not 0 <= duration <= DURATION_MS_MOST or (first is not None and not 0 <= first <= max(duration, 0)):
        return IMPOSSIBLE_TIMES
    if not 0 <= record["time"] <= TIME_MS_MOST or (settled is not None and settled < record["time"] - DURATION_MS_MOST):
        return IMPOSSIBLE_TIMES
    if record["kind"] == "usage" and record["billed_output_tokens"] < 0:
        return IMPOSSIBLE_TOKENS
    made = max(record["output_tokens"], record["billed_output_tokens"])
    if record["duration_ms"] is not None and made > (record.get("choices") or 1) * (
        TOKENS_AT_ONCE + TOKENS_A_MS * duration
    ):
        return IMPOSSIBLE_TOKENS
    return "" if record["finish"] in _ENDINGS else UNKNOWN_ENDING


def length_bin(tokens: int) -> int:
    """Return the bin of a length, from 0 for one token on."""
    return int(BINS_A_DOUBLING * log2(tokens) + 1e-9)


def _begun(record: Mapping[str, Any], duration: int, fault: str) -> Going:
    time = record["time"]
    return Going(
        customer=record["customer"],
        conversation=record["conversation"],
        first=time,
        last=max(time, record["settled"] or 0),
        tier=record["tier"] or "",
        menu_version=record["menu_version"] or "",
        chosen=record["tier_chosen"] is not None,
        tokens=record["billed_output_tokens"],
        waited_ms=duration,
        early_ms=min(duration, EARLY_MS),
        untimed_ms=min(duration, UNTIMED_MS),
        at=time,
        record=record["id"],
        finish=finish_in(record),
        duration_ms=duration,
        fault=fault,
    )


def _age(duration_ms: int) -> tuple[int, int]:
    """Return the second of its wait in which a call ended, and how far into it, ms."""
    age = min(duration_ms // 1000, AGES - 1)
    return age, min(duration_ms - 1000 * age, 1000)


def _add(ages: Table, place: tuple[int, int, int], *, left: bool) -> None:
    week, age, within = place
    _sum(ages, (week, age), (1, int(left), within))


def _sum(table: Table, key: Key, amounts: tuple[int, ...]) -> None:
    known = table.get(key)
    if known is None:
        table[key] = list(amounts)
        return
    for place, amount in enumerate(amounts):
        known[place] += amount


def windows_of(first_week: int, last_week: int) -> tuple[int, ...]:
    """Return the first week of each window that the weeks are cut into."""
    weeks = last_week - first_week + 1
    number = max(1, min(WINDOWS_MOST, weeks))
    return tuple(first_week + place * weeks // number for place in range(number))


def by_window(week: int, amounts: Sequence[int], windows: Sequence[int]) -> list[int]:
    """Return a customer's amounts in a week, then disconnects and ms waited for each window but the last."""
    row = [*amounts, *(0 for _ in range(2 * (len(windows) - 1)))]
    place = bisect_right(windows, week) - 1
    if place < len(windows) - 1:
        row[AMOUNTS + 2 * place : AMOUNTS + 2 * place + 2] = amounts[1:3]
    return row
