"""Owns every live hold of a worker from its admission until it is settled, however the response ends."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError

from gateway.errors import MeteringUnavailable
from gateway.holds.admission import Lease
from gateway.holds.hold import Checkpoint, Hold, Once, Outcome, Settled
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.settlement import Settlements
from gateway.metrics.counters import UNANSWERED, Counters
from gateway.metrics.definitions import REQUESTS

log = logging.getLogger("tokencap.holds")

RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0

WITHDRAWN_AT_ONCE = 50

MARKED_S = 30.0
"""How long the mark of a settled hold outlives its reply: a command that was sent twice may still arrive."""

FORGOTTEN_AT_ONCE = 10_000


class Live:
    """One live hold, and how many tokens its caller has been sent so far."""

    __slots__ = ("_sofar", "counting", "hold", "is_lost", "once", "owes_input")

    def __init__(self, hold: Hold, once: Once | None) -> None:
        self.hold = hold
        self.once = once
        self.counting: Callable[[], int] | None = None
        """Returns the tokens so far; called once for each renewal, not once for each token."""
        self._sofar = 0
        self.owes_input = False
        """Whether the input is owed even without output: the caller left an answer that the upstream had begun."""
        self.is_lost = False
        """Whether another process has closed the hold meanwhile; its tokens may have been granted again."""

    @property
    def sofar(self) -> int:
        """How many tokens the caller has been sent so far."""
        return self._sofar if self.counting is None else self.counting()

    @sofar.setter
    def sofar(self, tokens: int) -> None:
        self.counting, self._sofar = None, tokens

    @property
    def checkpoint(self) -> Checkpoint:
        """The part of the call's state that a renewal saves."""
        return Checkpoint(self.sofar, self.owes_input)


Settling = tuple[Live, Outcome, Once | None, asyncio.Future[Settled | None]]
"""A settlement that Redis has not made yet; its last item is the future that the caller of ``settle`` may wait for."""


class Keeper:
    """Renews live holds about once a second, settles each once, and reports when a worker must stop relaying.

    The fence: a worker that has not renewed for half a lease relays nothing until it has renewed, because from then on
    other processes may treat it as dead. The time counts from when the last successful renewal was *sent*, on this
    worker's own monotonic clock. There is one exception: where the server refuses connections, and so is unavailable
    to every process, the worker continues to serve.
    """

    def __init__(
        self,
        settlements: Settlements,
        claims: IdempotencyClaims,
        lease: Lease,
        counters: Counters,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._settlements = settlements
        self._counters = counters
        self._idempotency_claims = claims
        self._lease_s = lease.lease_ms / 1000
        self._monotonic = monotonic
        self._live: dict[str, Live] = {}
        self._doubtful: dict[str, Hold] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._settled: deque[tuple[float, str, str]] = deque()
        """The holds whose marks are still to be removed, oldest first: when each was settled, its bucket and its id."""
        self._all_settled = asyncio.Event()
        self._renewed_at = monotonic()
        self._renewing: asyncio.Task[None] | None = None
        self._server_is_gone = False

    @property
    def holds(self) -> list[Live]:
        """The in-flight calls."""
        return list(self._live.values())

    def is_overdue(self) -> bool:
        """Return whether this worker must not relay another token before it has renewed."""
        overdue = self._monotonic() - self._renewed_at > self._lease_s / 2
        return overdue and not self._server_is_gone

    async def catches_up(self, live: Live) -> bool:
        """Renew, once for all waiting calls, and return whether the call may continue: it may after mere slowness."""
        await self.renew()
        return not self.is_overdue() and not live.is_lost

    def take(self, hold: Hold, once: Once | None = None) -> Live:
        """Take over a new hold, and its Idempotency-Key."""
        live = self._live[hold.facts.id] = Live(hold, once)
        self._all_settled.clear()
        return live

    def doubt(self, hold: Hold) -> None:
        """Take over a hold that may exist, to withdraw it once Redis answers again."""
        self._doubtful[hold.id] = hold

    def settle(self, live: Live, outcome: Outcome, once: Once | None = None) -> asyncio.Future[Settled | None]:
        """Settle a hold, trying until Redis has settled it. Never waits, never fails.

        A caller may wait for the returned future, and may cancel it without stopping the settlement. ``once`` has the
        answers to keep; without ``once`` the Idempotency-Key is free again.
        """
        live.sofar = outcome.billed_output_tokens
        once = once or live.once
        future: asyncio.Future[Settled | None] = asyncio.get_running_loop().create_future()
        settling = live, outcome, once, future
        try:
            sent = self._settlements.post(live.hold, outcome, once)
            posted = sent if isinstance(sent, asyncio.Future) else asyncio.ensure_future(sent)
        except (RedisError, MeteringUnavailable):
            self._go_on(settling)
        else:
            posted.add_done_callback(partial(self._was_posted, settling))
        return future

    def _was_posted(self, settling: Settling, posted: asyncio.Future[Any]) -> None:
        settled = self._settlements.read(posted)
        if settled is None:
            self._go_on(settling)
        else:
            self._close(settling, settled)

    def _go_on(self, settling: Settling) -> None:
        """Settle in a task, where a single request was not enough."""
        live, *_ = settling
        task = asyncio.create_task(self._until_settled(settling), name=f"settle {live.hold.id}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _until_settled(self, settling: Settling) -> None:
        live, outcome, once, _ = settling
        hold, wait_s = live.hold, RETRY_FIRST_S
        while True:
            try:
                settled = await self._settlements.settle(hold, outcome, once)
            except Exception as error:
                if not isinstance(error, MeteringUnavailable):
                    log.exception("hold %s is not settled yet", hold.id)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MOST_S)
            else:
                return self._close(settling, settled)

    def _close(self, settling: Settling, settled: Settled) -> None:
        live, outcome, _, future = settling
        facts = live.hold.facts
        self._live.pop(facts.id, None)
        self._settled.append((self._monotonic(), facts.bucket, facts.id))
        if not outcome.was_answered:
            self._counters.add(REQUESTS, facts.tier or "", UNANSWERED)
        if not self._live:
            self._all_settled.set()
        if not future.done():
            future.set_result(settled)

    async def run(self) -> None:
        """Send heartbeats and renewals until cancelled, whatever happens: without them the worker is useless."""
        interval_s = min(1.0, self._lease_s / 5)
        self._withdrawing = asyncio.create_task(self._withdraw_doubtful())
        while True:
            try:
                await self.renew()
                if self._doubtful and self._withdrawing.done():
                    self._withdrawing = asyncio.create_task(self._withdraw_doubtful())
            except Exception:
                log.exception("holds could not be renewed")
            await asyncio.sleep(interval_s)

    async def renew(self) -> None:
        """Renew every live hold with its tokens so far, and announce the holds that a rebuild does not know.

        A call made while a renewal runs waits for that renewal.
        """
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_all())
        await asyncio.shield(self._renewing)

    async def _renew_all(self) -> None:
        sent_at = self._monotonic()
        try:
            async with asyncio.timeout(self._lease_s / 2):
                by_bucket: dict[str, dict[str, Live]] = defaultdict(dict)
                for hold_id, live in self._live.items():
                    by_bucket[live.hold.facts.bucket][hold_id] = live
                await asyncio.gather(  # one batch: turns of a busy event loop are slow, and the fence counts their time
                    self._settlements.beat(),
                    *(self._renew_bucket(bucket, calls) for bucket, calls in by_bucket.items()),
                    self._idempotency_claims.renew(
                        [(live.hold.facts, live.once) for live in self._live.values() if live.once]
                    ),
                    self._settlements.forget(self._long_settled(sent_at - MARKED_S)),
                )
        except MeteringUnavailable as error:
            self._server_is_gone = isinstance(error.__cause__, NoConnection)
            log.warning("holds could not be renewed: %s", error.__cause__ or error)
        except TimeoutError:
            self._server_is_gone = False
            log.warning("holds could not be renewed in time")
        else:
            self._renewed_at, self._server_is_gone = sent_at, False

    def _long_settled(self, before: float) -> list[tuple[str, str]]:
        """Return, once, the holds settled ``before`` a time. Marks that are left are removed a day later by upkeep."""
        holds: list[tuple[str, str]] = []
        while self._settled and self._settled[0][0] <= before and len(holds) < FORGOTTEN_AT_ONCE:
            holds.append(self._settled.popleft()[1:])
        return holds

    async def _renew_bucket(self, bucket: str, calls: dict[str, Live]) -> None:
        verdicts = await self._settlements.renew(bucket, {hold_id: live.checkpoint for hold_id, live in calls.items()})
        for hold_id, verdict in verdicts.items():
            if verdict == "unknown" and hold_id in self._live:
                live = calls[hold_id]
                live.is_lost = not await self._settlements.announce(live.hold, live.checkpoint)

    async def _withdraw_doubtful(self) -> None:
        """Withdraw the reservations that got no reply, while renewals go on; failed withdrawals are tried again."""
        with suppress(MeteringUnavailable):
            while batch := list(self._doubtful.values())[:WITHDRAWN_AT_ONCE]:
                await asyncio.gather(*(self._settlements.withdraw(hold) for hold in batch))
                for hold in batch:
                    del self._doubtful[hold.id]
                    self._settled.append((self._monotonic(), hold.facts.bucket, hold.id))

    async def drain(self, seconds: float) -> bool:
        """Wait until every live call is settled, including calls that end meanwhile; return whether all are settled."""
        if self._live:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._all_settled.wait()
        return not self._live
