"""Finds the conversation that a call goes on with, by what its caller brings back: a tool call of ours, a cut answer."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.holds import keys
from gateway.holds.connect import text, translated
from gateway.holds.directory import Directory
from gateway.holds.line import Line


class Threads:
    """Remembered for an hour by the settlement of the call that was answered."""

    def __init__(self, line: Line, directory: Directory) -> None:
        self._line = line
        self._directory = directory

    async def conversation(self, bucket: str, key_digest: str, threads: Sequence[str]) -> str | None:
        """Return the conversation of the first of ``threads`` that is known for the customer whose key it is."""
        if not threads:
            return None
        with translated():
            holder = await self._directory.holder(bucket, key_digest)
            if holder is None:
                return None
            found = await self._line.ask("MGET", *(keys.thread(bucket, holder[0], thread) for thread in threads))
        first = next((name for name in found if name is not None), None)
        return None if first is None else text(first)
