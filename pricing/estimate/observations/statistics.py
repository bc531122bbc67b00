"""The statistics of usage records that estimators need: counts and sums, at most by customer, never by call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pricing.estimate.observations.conversations import DURATION_MS_MOST
from pricing.estimate.observations.spread import OwnLengths
from pricing.market.answers import Floats, Ints

VOLUME_MOST = 1_000
"""A customer with more than this multiple of the median number of conversations is a program, or a fault, and is set
aside."""


BOUGHT = -2
"""The choice of a customer who named tiers for single conversations."""


@dataclass(frozen=True, slots=True)
class LengthCounts:
    """Conversations of one tier by length and ending.

    Attributes:
        tier: the tier's name, then a space and its cap, which distinguishes tiers of one name.
        cap_tokens: the tier's cap, None for no cap.
        tokens: lengths, positive and rising. Shape (m,).
        observed: conversations that ended by themselves at each length. Shape (m,).
        censored: conversations that were cut at each length. Shape (m,).
    """

    tier: str
    cap_tokens: int | None
    tokens: Ints
    observed: Ints
    censored: Ints


@dataclass(frozen=True, slots=True)
class PaceCounts:
    """Sums over streamed calls of w = ttft, x = tokens after the first, y = seconds after the first.

    Attributes:
        calls: the number of calls.
        set_aside: the number of calls with negative or impossible times, which are in no sum.
    """

    calls: int
    ttft_s: float
    ttft_squared: float
    tokens: float
    tokens_squared: float
    seconds: float
    seconds_squared: float
    tokens_seconds: float
    set_aside: int


def pace_counts(ttft_ms: Ints, duration_ms: Ints, output_tokens: Ints) -> PaceCounts:
    """Return the sums over streamed calls; calls whose clock ran backwards or jumped are only counted. Shapes (n,)."""
    possible = (ttft_ms >= 0) & (duration_ms >= ttft_ms) & (duration_ms <= DURATION_MS_MOST) & (output_tokens >= 1)
    first = ttft_ms[possible] / 1000.0
    seconds = (duration_ms - ttft_ms)[possible] / 1000.0
    tokens = output_tokens[possible] - 1.0
    return PaceCounts(
        calls=len(first),
        ttft_s=float(first.sum()),
        ttft_squared=float(np.dot(first, first)),
        tokens=float(tokens.sum()),
        tokens_squared=float(np.dot(tokens, tokens)),
        seconds=float(seconds.sum()),
        seconds_squared=float(np.dot(seconds, seconds)),
        tokens_seconds=float(np.dot(tokens, seconds)),
        set_aside=len(possible) - len(first),
    )


@dataclass(frozen=True, slots=True)
class Part:
    """A part of each customer's waits: disconnects and seconds. Shapes (n,)."""

    disconnects: Ints
    waited_s: Floats

    def only(self, rows: Ints) -> Part:
        """Return the part for some customers."""
        return Part(self.disconnects[rows], self.waited_s[rows])


@dataclass(frozen=True, slots=True)
class Windows:
    """Customers' behaviour by window of time, to test whether they have changed.

    Attributes:
        starts: the first week of each window, rising; a window ends where the next one starts.
        disconnects, waited_s: disconnects and seconds waited of each customer in each window. Shapes (n, windows).
    """

    starts: tuple[int, ...]
    disconnects: Ints
    waited_s: Floats

    def only(self, rows: Ints) -> Windows:
        """Return the windows for some customers."""
        return Windows(self.starts, self.disconnects[rows], self.waited_s[rows])


@dataclass(frozen=True, slots=True)
class Customers:
    """Customers, one row each.

    Attributes:
        disconnects: conversations that the customer left while the model ran, d. Shape (n,).
        waited_s: seconds waited in all conversations, E. Shape (n,).
        conversations: the number of conversations. Shape (n,).
        early: disconnects and seconds within the first ``EARLY_MS`` of every wait; None if not stored.
        even: disconnects and seconds on days whose number since 1970 is even; None if not stored.
        untimed: disconnects and seconds within the first ``UNTIMED_MS`` of every wait; None if not stored.
        windows: disconnects and seconds by window of time; None if there is only one window.
        choices: the tier taken under each offer: 1 for the smallest, 0 for no tier, -1 for no known choice, ``BOUGHT``
            for tiers named for single conversations. Shape (n, offers).
    """

    disconnects: Ints
    waited_s: Floats
    conversations: Ints
    early: Part | None = None
    even: Part | None = None
    choices: Ints | None = None
    untimed: Part | None = None
    windows: Windows | None = None

    def only(self, rows: Ints) -> Customers:
        """Return some of the customers."""
        return Customers(
            self.disconnects[rows],
            self.waited_s[rows],
            self.conversations[rows],
            None if self.early is None else self.early.only(rows),
            None if self.even is None else self.even.only(rows),
            None if self.choices is None else self.choices[rows],
            None if self.untimed is None else self.untimed.only(rows),
            None if self.windows is None else self.windows.only(rows),
        )


@dataclass(frozen=True, slots=True)
class AgeCounts:
    """All waits by age: place k is from k to k + 1 seconds after the call.

    Attributes:
        disconnects: the number of customers who left at that age. Shape (ages,).
        waited_s: seconds waited at that age, at most one second for each wait. Shape (ages,).
    """

    disconnects: Ints
    waited_s: Floats


@dataclass(frozen=True, slots=True)
class Offer:
    """A menu that customers chose from: caps rising, None for no cap, with the price of a conversation.

    Attributes:
        taken: conversations by the tier chosen *for the single conversation*, from the smallest; None where customers
            chose once for all their conversations.
        refused: conversations for which no tier was taken; None where they were not counted.
    """

    caps_tokens: tuple[int | None, ...]
    prices_nanousd: tuple[int, ...]
    taken: tuple[int, ...] | None = None
    refused: int | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of the usage records.

    Attributes:
        set_aside: numbers of records, conversations and customers that are left out, by reason.
        going: the number of counted conversations that may go on; they are counted as they stand.
        own: lengths by customer, None if not stored.
        currency: the currency of all prices, None if it is unknown.
    """

    lengths: tuple[LengthCounts, ...]
    pace: PaceCounts
    customers: Customers
    ages: AgeCounts | None
    offers: tuple[Offer, ...]
    set_aside: Mapping[str, int]
    going: int = 0
    own: OwnLengths | None = None
    currency: str | None = None


def cleaned(statistics: Statistics) -> Statistics:
    """Return the statistics without impossible customers, whose numbers ``set_aside`` counts by reason.

    A wait that is negative or not a number is impossible, and so is a customer who left more conversations than it had,
    left without having waited, or took a tier that was not offered. A customer with more than ``VOLUME_MOST`` times the
    median number of conversations is set aside as well.
    """
    customers = statistics.customers
    impossible = ~np.isfinite(customers.waited_s) | (customers.waited_s < 0)
    impossible |= (customers.waited_s == 0) & (customers.disconnects > 0)
    impossible |= (
        (customers.conversations < 1) | (customers.disconnects < 0) | (customers.disconnects > customers.conversations)
    )
    for part in (customers.early, customers.even, customers.untimed):
        if part is not None:
            impossible |= (part.disconnects < 0) | (part.disconnects > customers.disconnects)
            impossible |= ~(part.waited_s >= 0) | (part.waited_s > customers.waited_s * (1 + 1e-9))
    if customers.choices is not None:
        tiers = np.array([len(offer.caps_tokens) for offer in statistics.offers], dtype=np.int64)
        impossible |= np.any((customers.choices < BOUGHT) | (customers.choices > tiers), axis=1)
    outsized = np.zeros(len(impossible), dtype=bool)
    outsized[~impossible] = are_outsized(customers.conversations[~impossible])
    retained = np.flatnonzero(~impossible & ~outsized)
    counts = dict(statistics.set_aside)
    for reason, number in (
        ("customers_impossible", int(impossible.sum())),
        ("customers_outsized", int(outsized.sum())),
        ("calls_of_impossible_times", statistics.pace.set_aside),
    ):
        if number:
            counts[reason] = counts.get(reason, 0) + number
    own = None if statistics.own is None else statistics.own.only(retained, len(impossible))
    return replace(statistics, customers=customers.only(retained), set_aside=counts, own=own)


def are_outsized(conversations: Ints) -> NDArray[np.bool_]:
    """Return which rows have more than ``VOLUME_MOST`` times the median number of conversations. Shape (n,)."""
    return conversations > VOLUME_MOST * (float(np.median(conversations)) if len(conversations) else 0.0)
