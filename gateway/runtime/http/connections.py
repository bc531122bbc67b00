"""The connections of a listener: their number, their addresses, and which has waited longest for a request."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Protocol

from gateway.deadlines import Deadlines
from gateway.errors import TokencapError, TooManyConnections
from gateway.runtime.http.limits import BODY_GRACE_S, LINGERING_MAX, READ_MAX, HttpLimits

TICK_S = 0.25

LOG_EVERY_S = 60.0

log = logging.getLogger(__name__)


class Waiting(Protocol):
    def make_room(self) -> None:
        """End a connection on which no request runs."""


class Door:
    """The connections of one listener of a worker, and the clock that ends slow connections."""

    def __init__(
        self,
        limits: HttpLimits | None = None,
        deadlines: Deadlines | None = None,
        tick_s: float = TICK_S,
        *,
        count: Callable[[str], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or HttpLimits()
        self.deadlines = deadlines or Deadlines(tick_s)
        self.tick_s = tick_s
        self.head_ticks = self.deadlines.within(self.limits.head_deadline_s)
        self.idle_ticks = self.deadlines.within(self.limits.keep_alive_s)
        self.body_credit = self.limits.body_rate_min * BODY_GRACE_S
        """The bytes by which a body may be late."""
        self.buffer = memoryview(bytearray(READ_MAX))
        """The buffer into which every connection reads; the bytes are taken out before the next read."""
        self.lingering: set[Waiting] = set()
        """Connections that were refused for lack of room, while their refusal is sent."""
        self._count = 0
        self._of_address: Counter[str] = Counter()
        self._waiting: dict[Waiting, None] = {}
        self._refusals = Refusals(count, monotonic)

    def enter(self, connection: Waiting, address: str) -> None:
        """Admit a connection, which then waits for a request.

        Raises:
            TooManyConnections: the address has too many connections, or all possible connections have running requests.
        """
        if self._of_address[address] >= self.limits.connections_per_address_max:
            raise TooManyConnections("There are too many connections from this address.")
        if self._count >= self.limits.connections_max:
            longest = next(iter(self._waiting), None)
            if longest is None:
                raise TooManyConnections("There are too many connections.")
            del self._waiting[longest]
            longest.make_room()
        self._count += 1
        self._of_address[address] += 1
        self._waiting[connection] = None

    def leave(self, connection: Waiting, address: str) -> None:
        self._count -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
        self.runs(connection)

    def waits(self, connection: Waiting) -> None:
        """Note that a connection waits for its next request."""
        self._waiting[connection] = None

    def runs(self, connection: Waiting) -> None:
        """Note that a connection has a request."""
        self._waiting.pop(connection, None)

    def refused(self, error: TokencapError, address: str) -> None:
        """Note that a request, or a connection, was refused by the server itself."""
        self._refusals.note(error.code or "", address)

    @property
    def may_linger(self) -> bool:
        return len(self.lingering) < LINGERING_MAX


class Refusals:
    """The server's own refusals: counted by code, and logged, at most one line a minute."""

    def __init__(self, count: Callable[[str], None] | None, monotonic: Callable[[], float]) -> None:
        self._count = count
        self._monotonic = monotonic
        self._unlogged: Counter[str] = Counter()
        self._logged_s = -LOG_EVERY_S

    def note(self, code: str, address: str) -> None:
        if self._count is not None:
            self._count(code)
        self._unlogged[code] += 1
        now_s = self._monotonic()
        if now_s - self._logged_s >= LOG_EVERY_S:
            sums = ", ".join(f"{number} {code}" for code, number in self._unlogged.most_common())
            log.warning("refused at the door since this was last said: %s; now from %s", sums, address or "a socket")
            self._unlogged.clear()
            self._logged_s = now_s


def group_of(host: str) -> str:
    """Return the group that counts as one address: an IPv4 address, or the IPv6 network of a provider's customer."""
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()
