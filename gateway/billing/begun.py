"""Tells which record begins a conversation that is paid for: the first with an output token. Pure; sees records in order."""

from __future__ import annotations

from gateway.ledger.read.conversations import DAY_MS, HOUR_MS

SWEEP_EVERY = 50_000


class Begun:
    """Conversations that go on, by customer and name. A name used again after its conversation ended is another one."""

    def __init__(self) -> None:
        self._going: dict[tuple[str, str], list[int]] = {}
        """First call, last sign of life, and 1 once an output token was seen."""
        self._seen = 0

    def is_begun_by(self, customer: str, conversation: str, time: int, settled: int, tokens: int) -> bool:
        """Return whether a call has the first output token of its conversation; calls come oldest first by (time, id)."""
        self._seen += 1
        if self._seen % SWEEP_EVERY == 0:
            self._project(time)
        going = self._going.get((customer, conversation))
        if going is None or time - going[0] >= DAY_MS or time - going[1] >= HOUR_MS:
            going = self._going[customer, conversation] = [time, time, 0]
        going[1] = max(going[1], time, settled)
        if tokens <= 0 or going[2]:
            return False
        going[2] = 1
        return True

    def _project(self, now: int) -> None:
        ended = [
            name for name, (first, last, _) in self._going.items() if now - first >= DAY_MS or now - last >= HOUR_MS
        ]
        for name in ended:
            del self._going[name]
