"""Compares windows with the holds open in them: a window's held tokens must equal those of its holds, to the token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import redis

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.inflight import BucketState, Survey
from gateway.holds.store.packing import WindowState
from gateway.holds.store.scripts import run_all, source

TRIES = 3
"""How many times a bucket with holds in unrequested windows is read; after that the bucket waits for the next turn."""


@dataclass(frozen=True, slots=True)
class Held:
    """The tokens and money that one hold has set aside in a window."""

    window: str
    tokens: int
    money: int


@dataclass(slots=True)
class Count:
    """The result of a census. In ``windows``, None is a consistent window; a text names a window's fault."""

    windows: dict[str, str | None] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    """The number of open holds in each bucket that was read."""
    tokens: dict[str, int] = field(default_factory=dict)
    """The tokens that the open holds of each bucket have set aside."""
    waiting: int = 0
    """The records that wait for the ledger, in all buckets."""


def fault(window: WindowState, holds: Sequence[Held]) -> str | None:
    """Return how a window breaks granted = used + held + remaining, or None where it does not."""
    tokens, money = sum(hold.tokens for hold in holds), sum(hold.money for hold in holds)
    faults = []
    if window.held != tokens:
        faults.append(f"{window.held} tokens are held, its {len(holds)} open holds have {tokens}")
    if window.spend_held != money:
        faults.append(f"{window.spend_held} nano-units are held, its {len(holds)} open holds have {money}")
    amounts = {
        "used": window.used,
        "held": window.held,
        "spend_used": window.spend_used,
        "spend_held": window.spend_held,
    }
    faults += [f"{name} is {amount}" for name, amount in amounts.items() if amount < 0]
    if window.tokens_max is not None and window.used + window.held > window.tokens_max:
        faults.append(f"{window.used} tokens used and {window.held} held are over {window.tokens_max}")
    if window.spend_max is not None and window.spend_used + window.spend_held > window.spend_max:
        faults.append(f"{window.spend_used} nano-units spent and {window.spend_held} held are over {window.spend_max}")
    return "; ".join(faults) or None


class Census:
    """Counts the holds of buckets, each bucket at one moment.

    Args:
        survey: returns the state of each bucket, read a moment ago; with None the census reads the states itself.

    Raises:
        MeteringUnavailable: Redis is unavailable, from ``take``.
    """

    def __init__(
        self,
        client: redis.Redis,
        generation: Callable[[], str],
        survey: Callable[[], Mapping[str, BucketState]] | None = None,
    ) -> None:
        self._redis = client
        self._generation = generation
        self._survey = survey or Survey(client).take
        self._read = client.register_script(source("census"))

    def take(self, windows: Iterable[str]) -> Count:
        """Return the state of ``windows``, and of every window that an open hold is in.

        A bucket that is being rebuilt, or where calls in new windows begin too fast, is left out.
        """
        requested: dict[str, set[str]] = {bucket: set() for bucket in redis_keys.ALL_BUCKETS}
        for name in windows:
            requested[bucket_in(name)].add(name)
        count = Count()
        with translated():
            waiting: Collection[str] = self._having(count, requested)
            for _ in range(TRIES):
                waiting = self._count(count, {bucket: requested[bucket] for bucket in waiting})
        return count

    def _having(self, count: Count, requested: Mapping[str, set[str]]) -> list[str]:
        """Return the buckets that have a hold or a requested window; count the others, which have none, as zero."""
        states = self._survey()
        count.waiting = sum(bucket.waiting for bucket in states.values())
        empty = [
            bucket
            for bucket, names in requested.items()
            if not (names or states[bucket].has_calls or states[bucket].has_older_holds)
        ]
        count.holds.update(dict.fromkeys(empty, 0))
        count.tokens.update(dict.fromkeys(empty, 0))
        return [bucket for bucket in requested if bucket not in count.holds]

    def _count(self, count: Count, requested: Mapping[str, set[str]]) -> list[str]:
        """Add buckets to ``count``; return those with a hold in an unrequested window, and request that window."""
        windows = {bucket: sorted(names) for bucket, names in requested.items()}
        generation = self._generation()
        replies = run_all(
            self._redis,
            self._read,
            [
                (
                    [redis_keys.state(bucket), redis_keys.inflight(bucket), redis_keys.older_holds(bucket), *names],
                    [generation],
                )
                for bucket, names in windows.items()
            ],
        )
        unfinished = []
        for (bucket, names), reply in zip(windows.items(), replies, strict=True):
            if reply[0] == b"rebuild":
                continue
            _, flat, rows = reply
            held: dict[str, list[Held]] = defaultdict(list)
            for place in range(0, len(flat), 3):
                hold = Held(text(flat[place]), int(flat[place + 1]), int(flat[place + 2]))
                held[hold.window].append(hold)
            if held.keys() - requested[bucket]:
                requested[bucket].update(held)
                unfinished.append(bucket)
                continue
            for name, row in zip(names, rows, strict=True):
                count.windows[name] = fault(WindowState.read(row), held[name])
            count.holds[bucket] = len(flat) // 3
            count.tokens[bucket] = sum(hold.tokens for holds in held.values() for hold in holds)
        return unfinished


def bucket_in(name: str) -> str:
    """Return the bucket of a key's name."""
    return name[2:4]
