"""Compares windows with the holds that are open in them: what is set aside is what the holds hold, to the token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from gateway.holds import keys
from gateway.holds.connect import text, translated
from gateway.holds.scripts import source

TRIES = 3
"""How often a bucket is read again whose holds changed in between; after that it waits for the next turn."""


@dataclass(frozen=True, slots=True)
class Window:
    """One period of a customer, as it was read. Limits are those of its last admission; None is no limit."""

    used: int = 0
    held: int = 0
    spend_used: int = 0
    spend_held: int = 0
    tokens_max: int | None = None
    spend_max: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What one hold has set aside in a window."""

    window: str
    tokens: int
    money: int


@dataclass(slots=True)
class Count:
    """What was counted. ``windows`` that were found as they must be have None, others a sentence that says how not."""

    windows: dict[str, str | None] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    """Open holds of each bucket that was read."""
    tokens: dict[str, int] = field(default_factory=dict)
    """What they hold together."""


def fault(window: Window, holds: Sequence[Held]) -> str | None:
    """Return how a window breaks granted = used + held + remaining, or None."""
    tokens, money = sum(hold.tokens for hold in holds), sum(hold.money for hold in holds)
    found = []
    if window.held != tokens:
        found.append(f"{window.held} tokens are held, its {len(holds)} open holds have {tokens}")
    if window.spend_held != money:
        found.append(f"{window.spend_held} nano-units are held, its {len(holds)} open holds have {money}")
    amounts = {
        "used": window.used,
        "held": window.held,
        "spend_used": window.spend_used,
        "spend_held": window.spend_held,
    }
    found += [f"{name} is {amount}" for name, amount in amounts.items() if amount < 0]
    if window.tokens_max is not None and window.used + window.held > window.tokens_max:
        found.append(f"{window.used} tokens used and {window.held} held are over {window.tokens_max}")
    if window.spend_max is not None and window.spend_used + window.spend_held > window.spend_max:
        found.append(f"{window.spend_used} nano-units spent and {window.spend_held} held are over {window.spend_max}")
    return "; ".join(found) or None


class Census:
    """Counts buckets, each at one moment.

    Raises:
        MeteringUnavailable: Redis is not to be had, from ``take``.
    """

    def __init__(self, client: redis.Redis, generation: Callable[[], str]) -> None:
        self._redis = client
        self._generation = generation
        self._read = client.register_script(source("census"))

    def take(self, windows: Iterable[str]) -> Count:
        """Return what became of ``windows``, and of every window that an open hold is in.

        A bucket that is being rebuilt, or whose holds change too fast, is left out.
        """
        asked: dict[str, set[str]] = defaultdict(set)
        for name in windows:
            asked[bucket_in(name)].add(name)
        count = Count()
        with translated():
            waiting: Collection[str] = keys.ALL_BUCKETS
            for _ in range(TRIES):
                open_holds = self._open(waiting)
                their_windows = self._windows_of(open_holds)
                waiting = [
                    bucket
                    for bucket, ids in open_holds.items()
                    if not self._count(count, bucket, asked[bucket] | their_windows[bucket], ids)
                ]
        return count

    def _open(self, buckets: Collection[str]) -> dict[str, list[str]]:
        """Return the ids of each bucket's open holds."""
        if not buckets:
            return {}
        with self._redis.pipeline(transaction=False) as batch:
            for bucket in buckets:
                batch.zrange(keys.holds(bucket), 0, -1)
            replies = batch.execute()
        return {bucket: [text(name) for name in reply] for bucket, reply in zip(buckets, replies, strict=True)}

    def _windows_of(self, open_holds: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
        """Return the windows that each bucket's holds are in."""
        found: dict[str, set[str]] = {bucket: set() for bucket in open_holds}
        places = [(bucket, hold_id) for bucket, ids in open_holds.items() for hold_id in ids]
        if not places:
            return found
        with self._redis.pipeline(transaction=False) as batch:
            for bucket, hold_id in places:
                batch.hget(keys.hold(bucket, hold_id), "window")
            for (bucket, _), name in zip(places, batch.execute(), strict=True):
                if name is not None:
                    found[bucket].add(text(name))
        return found

    def _count(self, count: Count, bucket: str, asked: Collection[str], ids: Sequence[str]) -> bool:
        """Add a bucket to ``count``; return whether it stood still for it."""
        if not asked and not ids:
            count.holds[bucket] = count.tokens[bucket] = 0
            return True
        windows = sorted(asked)
        holds = [keys.hold(bucket, hold_id) for hold_id in ids]
        reply = self._read(
            keys=[keys.state(bucket), keys.holds(bucket), *windows, *holds],
            args=[self._generation(), len(windows), *ids],
        )
        if reply[0] != b"counted":
            return bool(reply[0] == b"rebuild")
        counted = reply[1:]
        held: dict[str, list[Held]] = defaultdict(list)
        for name, tokens, money in counted[len(windows) :]:
            if name is not None:
                held[text(name)].append(Held(text(name), int(tokens), int(money)))
        if any(name not in windows for name in held):
            return False
        for name, row in zip(windows, counted, strict=False):
            count.windows[name] = fault(_window(row), held[name])
        count.holds[bucket] = len(ids)
        count.tokens[bucket] = sum(hold.tokens for holds in held.values() for hold in holds)
        return True


def bucket_in(name: str) -> str:
    """Return the bucket that the name of a key belongs to."""
    return name[2:4]


def _window(row: Sequence[Any]) -> Window:
    used, held, spend_used, spend_held = (int(amount or 0) for amount in row[:4])
    tokens_max, spend_max = (int(most) if most else None for most in row[4:])
    return Window(used, held, spend_used, spend_held, tokens_max, spend_max)
