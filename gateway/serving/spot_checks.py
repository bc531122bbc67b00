"""Counts a random share of answers again with the house's own tokenizer: an upstream that adds to its usage is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.metrics.counters import Tally
from gateway.metrics.definitions import RECOUNTED
from gateway.serving.tokenizer import Recount

AT_ONCE_MOST = 8
"""Answers that are being counted again at a time; one more is let go."""


class SpotChecks:
    """Notes what the upstream said and what the tokenizer says of the same text, beside the calls: no caller waits for it.

    Args:
        tokenizer: the house's own, and none of the upstream's.
        share: of the answers, from 0 to 1.
        chance: a number from 0 to 1, anew each time.
    """

    def __init__(self, tokenizer: Recount, *, share: float, tally: Tally, chance: Callable[[], float]) -> None:
        self._tokenizer = tokenizer
        self._share = share if tokenizer.can_count else 0.0
        self._tally = tally
        self._chance = chance
        self._running: set[asyncio.Task[None]] = set()

    def picks(self) -> bool:
        """Return whether the next answer is one of those."""
        return self._share > 0 and self._chance() < self._share

    def compare(self, said: int, texts: Sequence[Sequence[str]]) -> None:
        """Count the texts of an answer's choices, soon, and note them beside what the upstream ``said``."""
        if len(self._running) < AT_ONCE_MOST:
            task = asyncio.create_task(self._compare(said, ["".join(pieces) for pieces in texts]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _compare(self, said: int, texts: list[str]) -> None:
        counted = await self._tokenizer.count(texts)
        if counted is not None:
            self._tally.add(RECOUNTED, "upstream", amount=said)
            self._tally.add(RECOUNTED, "tokenizer", amount=counted)
