"""From usage records to sums over conversations, one record at a time, with the standard library alone.

The sums are plain tables, ``{key: amounts}``, so that SQL can store them and add to them as records arrive.
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
"""A conversation ends an hour after its last call, and at the latest a day after its first call."""

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS

DURATION_MS_MOST = DAY_MS
"""The duration of a call longer than a day is an error of its clock."""

TIME_MS_MOST = 253_402_300_799_999
"""The end of the year 9999, the last year that calendars support."""

TOKENS_AT_ONCE, TOKENS_A_MS = 10_000, 50
"""No model generates more than ``TOKENS_AT_ONCE`` tokens of one choice plus ``TOKENS_A_MS`` per millisecond. A larger
figure is a fault, and a single such figure would dominate the estimates of length and speed."""

EARLY_MS = 5_000
"""The age at which waits are split, to test whether a customer leaves at the same rate before and after."""

UNTIMED_MS = 25_000
"""No usual client times out earlier than this; where clients time out later, waits count up to this age."""

AGES = 700
"""The number of seconds of a wait that are counted separately; the last of them includes all later seconds."""

WINDOWS_MOST = 4
"""The most windows of whole weeks into which time is cut, to test whether customers have changed."""

AMOUNTS = 9
"""The number of amounts of a customer in ``Sums.customers``."""

POOLED_MOST = 100
"""The most conversations per week that a customer adds to the sums over all customers, of lengths, waits and speed.
A program that hangs up a million times would dominate these sums, and a customer cannot be taken out of them."""

BINS_A_DOUBLING = 4
"""The bins per doubling in which a customer's own answers are counted by length: each bin ends 19 % above the last."""

NOT_CONVERSATIONS = frozenset({"/v1/embeddings"})

IMPOSSIBLE_TIMES = "conversations_of_impossible_times"
UNKNOWN_ENDING = "conversations_of_unknown_ending"
IMPOSSIBLE_TOKENS = "conversations_of_impossible_tokens"


class CannotEstimate(ValueError):
    """The records do not identify the estimate; the message is one sentence that says why."""


class Ending(Enum):
    """How the end of a conversation bears on the length of its answer."""

    OBSERVED = "observed"
    CENSORED = "censored"
    OPEN = "open"


_CUT = frozenset(
    {"cap", "caller_limit", "period", "context", "disconnect", "filtered", "upstream_error", "shutdown", "recovered"}
)
_ENDINGS = _CUT | {"complete", "tool_calls"}

UNHEARD = frozenset({"drained", "timed", "granted"})
"""Sources of token counts after the caller had left: the record's time is the caller's wait, but its tokens are not the
tokens generated in that time."""

DRAINED, GRANTED = "drained", "granted"
"""Endings of conversations that were left: a drained answer's complete length is known, a granted answer's is not."""

LEFT = frozenset({"disconnect", DRAINED, GRANTED})


def ending_of(finish: str, billed_tokens: int, cap_tokens: int | None) -> Ending:
    """Return how a conversation's last record bears on the length of its answer.

    An answer that ended by itself is an observation of its length. A cut answer is longer than the tokens billed, by an
    unknown amount: it is censored there, as is a complete answer that used its entire cap. Tool calls are no ending,
    because the conversation goes on. A fault cuts answers regardless of their length, so these are censored as well.

    Args:
        finish: the end of the conversation's last usage record, as ``finish_in`` returns it.
        billed_tokens: tokens billed for all its calls.
        cap_tokens: the conversation's cap, None where there is none.

    Raises:
        CannotEstimate: the finish is unknown.
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
    """A conversation that may go on. Times are ms since 1970; the wait for its last call is not yet in ``Sums.ages``."""

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
    """Why the conversation is set aside; empty if it is not."""

    @property
    def end(self) -> tuple[int, str, str]:
        """Return the time at which the conversation ends if no call follows, and its names, which order equal times."""
        return min(self.first + LONGEST_MS, self.last + IDLE_MS), self.customer, self.conversation

    def is_open(self, now_ms: int) -> bool:
        return now_ms < self.end[0]


Key = tuple[Any, ...]
Table = dict[Key, list[int]]


@dataclass(slots=True)
class Sums:
    """The sums over all records, in additive tables of whole numbers; every table's key begins with the week.

    Attributes:
        lengths: (week, menu version, tier, tokens) to conversations that ended there by themselves, and that were cut;
            at most ``POOLED_MOST`` conversations a week of each customer.
        own_lengths: (week, customer, menu version, tier, whether the day's number since 1970 is even, ``length_bin``) to
            conversations that ended there by themselves, and that were cut, among the conversations in ``lengths``.
        customers: (week, customer) to conversations, disconnects, ms waited; disconnects and ms within the first
            ``EARLY_MS`` of each wait; disconnects and ms on days whose number since 1970 is even; disconnects and ms
            within the first ``UNTIMED_MS`` of each wait.
        tiers: (week, customer, menu version, tier, whether it was named for the conversation) to conversations.
        ages: (week, age in s) to waits that ended at this age, how many of them were disconnects, and ms into that
            second; the last wait of a conversation beyond ``POOLED_MOST`` is left out.
        pace: (week,) to streamed calls, ms to the first token, its square, tokens after the first token, their square,
            ms after it, their square, and tokens times ms; at most ``POOLED_MOST`` calls a week of each customer, in
            the order of the records.
        paced: (week, customer) to the streamed calls in ``pace``.
        aside: (week, reason) to the number of conversations set aside.
    """

    lengths: Table = field(default_factory=dict)
    own_lengths: Table = field(default_factory=dict)
    customers: Table = field(default_factory=dict)
    tiers: Table = field(default_factory=dict)
    ages: Table = field(default_factory=dict)
    pace: Table = field(default_factory=dict)
    paced: Table = field(default_factory=dict)
    aside: Table = field(default_factory=dict)


def finish_in(record: Mapping[str, Any]) -> str:
    """Return how a call ended; for a call that its caller left, this depends on how its tokens were counted.

    The length of an answer that was drained to its end is known, unless that end was the call's grant. The length of an
    answer that was billed its grant is unknown. An answer billed by time, or by the tokens sent, is cut there.
    """
    finish, source = record["finish"] or "", record.get("usage_source")
    if finish != "disconnect" or source not in (DRAINED, GRANTED):
        return finish
    granted = (record.get("cap_tokens") or 0) * (record.get("choices") or 1)
    return finish if source == DRAINED and 0 < granted <= record["output_tokens"] else source


def is_of_a_conversation(record: Mapping[str, Any]) -> bool:
    """Return whether a record belongs to a conversation: calls and corrections do, fees, credits and embeddings do not."""
    return (
        record["kind"] in ("usage", "correction")
        and record["conversation"] is not None
        and record["endpoint"] not in NOT_CONVERSATIONS
    )


class Watch:
    """Reads usage records and adds up the conversations that have ended.

    Records may arrive somewhat out of order, because they arrive as they are settled: each record is matched to its
    conversation by customer, name and time. A name that recurs after its conversation ended is another conversation.

    Args:
        going: the conversations that were open when an earlier watch stopped.
        counted: (week, customer) to the conversations that earlier watches have added up.
        paced: (week, customer) to the streamed calls that earlier watches have added to the pace.
    """

    def __init__(
        self,
        going: Iterable[Going] = (),
        counted: Mapping[tuple[int, str], int] | None = None,
        paced: Mapping[tuple[int, str], int] | None = None,
    ) -> None:
        self.sums = Sums()
        self.counted, self.paced = counted or {}, paced or {}
        self.going = {(conversation.customer, conversation.conversation): conversation for conversation in going}
        self.latest_ms = 0

    def see(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Read some records: the pace reads calls in the given order, conversations read them in the order of time."""
        of_conversations = [record for record in records if is_of_a_conversation(record)]
        for record in of_conversations:
            if record["kind"] == "usage" and record["stream"] and record.get("usage_source") not in UNHEARD:
                self._pace(record)
        for record in sorted(of_conversations, key=lambda entry: (entry["time"], entry["id"])):
            self._see(record)
            self.latest_ms = max(self.latest_ms, record["settled"] or record["time"])

    def _see(self, record: Mapping[str, Any]) -> None:
        key = record["customer"], record["conversation"]
        time, fault = record["time"], fault_of(record)
        duration = 0 if fault == IMPOSSIBLE_TIMES else record["duration_ms"] or 0
        conversation = self.going.get(key)
        if conversation is not None and not conversation.is_open(time) and time > conversation.last:
            self._close(self.going.pop(key))
            conversation = None
        if conversation is None:
            self.going[key] = _begun(record, duration, fault)
        else:
            self._goes_on(conversation, record, duration, fault)

    def _goes_on(self, conversation: Going, record: Mapping[str, Any], duration: int, fault: str) -> None:
        """Add a call to its conversation: the ending of the later call counts, and the earlier call is a served wait."""
        is_later = (record["time"], record["id"]) >= (conversation.at, conversation.record)
        week = conversation.first // WEEK_MS
        _add(self.sums.ages, (week, *_age(conversation.duration_ms if is_later else duration)), left=False)
        if is_later:
            conversation.at, conversation.record = record["time"], record["id"]
            conversation.finish, conversation.duration_ms = finish_in(record), duration
        conversation.first = min(conversation.first, record["time"])
        conversation.last = max(conversation.last, record["time"], record["settled"] or 0)
        conversation.tokens += record["billed_output_tokens"]
        conversation.waited_ms += duration
        conversation.early_ms += min(duration, EARLY_MS)
        conversation.untimed_ms += min(duration, UNTIMED_MS)
        conversation.chosen = conversation.chosen or record["tier_chosen"] is not None
        conversation.fault = conversation.fault or fault

    def _pace(self, record: Mapping[str, Any]) -> None:
        first, duration, tokens = record["ttft_ms"], record["duration_ms"], record["output_tokens"]
        if first is None or duration is None or tokens < 1 or fault_of(record):
            return
        x, y = tokens - 1, duration - first
        week_customer = record["time"] // WEEK_MS, record["customer"]
        if self.paced.get(week_customer, 0) + self.sums.paced.get(week_customer, [0])[0] >= POOLED_MOST:
            return
        _sum(self.sums.paced, week_customer, (1,))
        _sum(self.sums.pace, week_customer[:1], (1, first, first * first, x, x * x, y, y * y, x * y))

    def close_ended(self, now_ms: int) -> list[Going]:
        """Add up the conversations that have ended by ``now_ms``, in the order of their ends, and return them."""
        ended = [going for going in self.going.values() if not going.is_open(now_ms)]
        for going in sorted(ended, key=lambda going: going.end):
            self._close(self.going.pop((going.customer, going.conversation)))
        return ended

    def close_all(self) -> int:
        """Add up all conversations as they stand; return the number of conversations that may go on."""
        open_count = sum(going.is_open(self.latest_ms) for going in self.going.values())
        for going in sorted(self.going.values(), key=lambda going: going.end):
            self._close(going)
        self.going.clear()
        return open_count

    def _close(self, going: Going) -> None:
        """Add up a conversation. Without a token it has no length, but the wait of its customer counts."""
        sums, week = self.sums, going.first // WEEK_MS
        if going.fault:
            _sum(sums.aside, (week, going.fault), (1,))
            return
        was_left = going.finish in LEFT
        early, untimed = (was_left and going.duration_ms < end for end in (EARLY_MS, UNTIMED_MS))
        on_even_day = (going.first // DAY_MS) % 2 == 0
        waits = (
            was_left,
            going.waited_ms,
            early,
            going.early_ms,
            was_left and on_even_day,
            going.waited_ms if on_even_day else 0,
        )
        _sum(sums.customers, (week, going.customer), (1, *map(int, waits), int(untimed), going.untimed_ms))
        _sum(sums.tiers, (week, going.customer, going.menu_version, going.tier, int(going.chosen)), (1,))
        if self.counted.get((week, going.customer), 0) + sums.customers[week, going.customer][0] > POOLED_MOST:
            return
        _add(sums.ages, (week, *_age(going.duration_ms)), left=was_left)
        ending = ending_of(going.finish, going.tokens, None)
        if ending is not Ending.OPEN and going.tokens > 0:
            observed = ending is Ending.OBSERVED
            counts = int(observed), int(not observed)
            _sum(sums.lengths, (week, going.menu_version, going.tier, going.tokens), counts)
            own = week, going.customer, going.menu_version, going.tier, int(on_even_day), length_bin(going.tokens)
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
    """Return the bin of a length; a length of one token is in bin 0."""
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
    """Return the second of the wait in which a call ended, and the time into that second, ms."""
    age = min(duration_ms // 1000, AGES - 1)
    return age, min(duration_ms - 1000 * age, 1000)


def _add(ages: Table, entry: tuple[int, int, int], *, left: bool) -> None:
    week, age, within_ms = entry
    _sum(ages, (week, age), (1, int(left), within_ms))


def _sum(table: Table, key: Key, amounts: tuple[int, ...]) -> None:
    sums = table.get(key)
    if sums is None:
        table[key] = list(amounts)
        return
    for place, amount in enumerate(amounts):
        sums[place] += amount


def windows_of(first_week: int, last_week: int) -> tuple[int, ...]:
    """Return the first week of each window into which the weeks are cut."""
    weeks = last_week - first_week + 1
    number = max(1, min(WINDOWS_MOST, weeks))
    return tuple(first_week + place * weeks // number for place in range(number))


def by_window(week: int, amounts: Sequence[int], windows: Sequence[int]) -> list[int]:
    """Return a customer's amounts in a week, then its disconnects and ms waited in each window except the last."""
    row = [*amounts, *(0 for _ in range(2 * (len(windows) - 1)))]
    place = bisect_right(windows, week) - 1
    if place < len(windows) - 1:
        row[AMOUNTS + 2 * place : AMOUNTS + 2 * place + 2] = amounts[1:3]
    return row
