"""Delays the answers to wrong tokens ever longer, and counts, logs and audits them; the right token never waits."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from gateway.catalog import audit_rows
from gateway.catalog.problems import TooManyWrongTokens
from gateway.errors import MeteringUnavailable
from gateway.ledger.database import Database

log = logging.getLogger(__name__)

FREE = 10
"""How many wrong tokens of one address are answered at once in each window: enough for a person's typing errors."""
FIRST_S, MOST_S = 0.1, 5.0
WINDOW_S = 60.0
ALL_PER_S = 20.0
"""How many wrong tokens of all addresses are answered in a second, apart from those that are answered at once."""
WAITING_MOST = 200
ADDRESSES_MOST = 1_024
LOG_EVERY_S = 10.0
AUDITED_EVERY_S = 60.0


@dataclass(slots=True)
class _Attempts:
    count: int
    since_s: float


class Sleep(Protocol):
    def __call__(self, delay: float) -> Awaitable[None]: ...


class WrongTokens:
    """The wrong tokens that one worker has received. This class compares no tokens and never receives a right token.

    Args:
        count: called for each wrong token.
        monotonic: a clock, seconds.
        sleep: waits.
    """

    def __init__(
        self,
        database: Database,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        count: Callable[[], None] = lambda: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._database = database
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._count = count
        self._sleep = sleep
        self._attempts: OrderedDict[str, _Attempts] = OrderedDict()
        self._next_answer_s = 0.0
        self._waiting = 0
        self._unlogged, self._logged_s = 0, float("-inf")
        self._unaudited, self._audited_s = 0, float("-inf")

    async def meet(self, address: str) -> None:
        """Count a wrong token, and wait until its answer is due.

        Raises:
            TooManyWrongTokens: too many answers are waiting already.
        """
        self._count()
        source, now_s = _place(address), self._monotonic()
        times = self._times(source, now_s)
        self._log(source, now_s)
        await self._audit(source, now_s)
        if times <= FREE:
            return
        if self._waiting >= WAITING_MOST:
            raise TooManyWrongTokens
        self._next_answer_s = max(now_s, self._next_answer_s) + 1 / ALL_PER_S
        wait_s = min(FIRST_S * 2.0 ** min(times - FREE - 1, 10), MOST_S)
        self._waiting += 1
        try:
            await self._sleep(max(wait_s, self._next_answer_s - now_s))
        finally:
            self._waiting -= 1

    def _times(self, source: str, now_s: float) -> int:
        """Count a wrong token of a source in its window. Of too many sources, drop the longest silent source."""
        attempts = self._attempts.pop(source, None)
        if attempts is None or now_s - attempts.since_s >= WINDOW_S:
            attempts = _Attempts(0, now_s)
        attempts.count += 1
        self._attempts[source] = attempts
        if len(self._attempts) > ADDRESSES_MOST:
            self._attempts.popitem(last=False)
        return attempts.count

    def _log(self, source: str, now_s: float) -> None:
        self._unlogged += 1
        if now_s - self._logged_s >= LOG_EVERY_S:
            log.warning(
                "wrong admin or metrics tokens: %d since this was last said, now from %s", self._unlogged, source
            )
            self._unlogged, self._logged_s = 0, now_s

    async def _audit(self, source: str, now_s: float) -> None:
        """Write at most one audit row per AUDITED_EVERY_S; an unavailable ledger changes no answer."""
        self._unaudited += 1
        if now_s - self._audited_s < AUDITED_EVERY_S:
            return
        after = {"wrong_tokens": self._unaudited, "addresses": len(self._attempts)}
        self._unaudited, self._audited_s = 0, now_s
        try:
            await asyncio.to_thread(self._write, f"address:{source}", after)
        except MeteringUnavailable:
            self._unaudited += after["wrong_tokens"]

    def _write(self, actor: str, after: dict[str, int]) -> None:
        with self._database.write() as connection:
            now = self._now_ms()
            audit_rows.record(
                connection, time=now, actor=actor, action="token.wrong", target="admin", before=None, after=after
            )


def _place(address: str) -> str:
    """Return the source of an address: for IPv6 its /64 network, since one caller has all addresses of a /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    return str(parsed) if parsed.version == 4 else ":".join(parsed.exploded.split(":")[:4]) + "::/64"
