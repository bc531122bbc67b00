"""The simulator's own count of the tokens it generated: the truth that the ledger is compared with."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

CALLS_KEPT = 100_000
"""How many calls can be read individually; the totals include all calls."""


@dataclass(slots=True)
class Call:
    """One answered request. ``completion_tokens`` were sent, ``unsent_tokens`` generated for a caller that had left."""

    id: str
    request_id: str | None
    stream: bool
    choices: int
    limit: int | None
    prompt_tokens: int
    completion_tokens: int = 0
    unsent_tokens: int = 0
    state: str = "live"
    """``live``, ``finished``, or ``closed`` by the client."""


class Count:
    """Totals over all calls, and the latest calls by the simulator's id and by the ``x-request-id`` they carried."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, Call] = OrderedDict()
        self._ids: dict[str, str] = {}
        self._by_status: dict[int, int] = {}
        self._totals = dict.fromkeys(("live", "finished", "closed"), 0)
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._unsent_tokens = 0

    def refuse(self, status: int) -> None:
        self._by_status[status] = self._by_status.get(status, 0) + 1

    def admit(self, call: Call) -> None:
        self._by_status[200] = self._by_status.get(200, 0) + 1
        self._totals["live"] += 1
        self._prompt_tokens += call.prompt_tokens
        self._calls[call.id] = call
        if call.request_id is not None:
            self._ids[call.request_id] = call.id
        if len(self._calls) > CALLS_KEPT:
            _, oldest = self._calls.popitem(last=False)
            if oldest.request_id is not None and self._ids.get(oldest.request_id) == oldest.id:
                del self._ids[oldest.request_id]

    def send(self, call: Call, tokens: int) -> None:
        call.completion_tokens += tokens
        self._completion_tokens += tokens

    def finish(self, call: Call) -> None:
        self._end(call, "finished")

    def close(self, call: Call, unsent_tokens: int) -> None:
        call.unsent_tokens += unsent_tokens
        self._unsent_tokens += unsent_tokens
        self._end(call, "closed")

    def _end(self, call: Call, state: str) -> None:
        call.state = state
        self._totals["live"] -= 1
        self._totals[state] += 1

    def totals(self) -> dict[str, Any]:
        """Return the sums over every call since the start; ``calls`` includes refused calls."""
        return {
            "calls": sum(self._by_status.values()),
            "calls_by_status": {str(status): calls for status, calls in sorted(self._by_status.items())},
            **self._totals,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "unsent_tokens": self._unsent_tokens,
        }

    def call(self, name: str) -> dict[str, Any] | None:
        """Return a call by the simulator's id or by its ``x-request-id``, or None where it is no longer known."""
        call = self._calls.get(self._ids.get(name, name))
        return None if call is None else asdict(call)
