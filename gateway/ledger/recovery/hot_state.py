"""Writes the state that a lost Redis had of some customers: windows, end users, conversations and settled calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import redis
from sqlalchemy import select

from gateway.holds.offer import HouseLimits, offer
from gateway.holds.periods import PeriodKind, period_at
from gateway.holds.store import packing, redis_keys
from gateway.holds.store.clients import translated
from gateway.holds.store.packing import ConversationState, WindowState
from gateway.holds.store.threads import KEPT_MS
from gateway.ledger.database import Database
from gateway.ledger.read.open_conversations import HOUR_MS, Conversation
from gateway.ledger.read.queries import begun_in, newest_times, settled_since, spent_in, tokens_by_end_user
from gateway.ledger.rows import batches
from gateway.ledger.sums.kept_threads import kept_threads
from gateway.ledger.sums.rollup import Used, conversations_in, windows_in
from gateway.ledger.sums.running_sums import Period
from gateway.ledger.tables import customers, menus
from gateway.settings import Settings
from pricing.menus.menu import Menu, Tier, split_version

AT_ONCE = 1_000
"""The commands in one batch, which waits once for the server and its disk."""


Command = list[bytes | str | int]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The installation's default cap, its lease and longest call (ms), and whether it only observes."""

    conversation_tokens_max: int
    lease_ms: int
    call_ms: int
    observes: bool


def bounds_of(settings: Settings) -> Bounds:
    """Return the settings of this gateway that a rebuild needs."""
    return Bounds(
        conversation_tokens_max=settings.conversation_tokens_max,
        lease_ms=int(settings.lease_s * 1000),
        call_ms=int(settings.call_deadline_s * 1000),
        observes=settings.mode == "observe",
    )


@dataclass(frozen=True, slots=True)
class Account:
    """A customer's kind of period, time zone and overrides."""

    kind: PeriodKind
    timezone: str
    overrides: dict[str, int]

    def period(self, time: int) -> Period:
        return period_at(self.kind, self.timezone, time)


class HotState:
    """Writes the hot state of customers. Each step may be repeated. The running sums have to be up to date.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, from every method.
    """

    def __init__(self, database: Database, client: redis.Redis, *, bounds: Bounds, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._redis = client
        self._bounds = bounds
        self._now_ms = now_ms
        self._tiers = {(menu.version, tier.name): tier for menu in menus_ever(database) for tier in menu.tiers}

    def write(self, ids: Sequence[str]) -> None:
        """Write the whole state of some customers, except the customers themselves and their keys."""
        accounts = self._accounts(ids)
        self._send(self._windows(accounts))
        self._send(self._end_users(accounts))
        self._send(self._conversations(accounts))
        self._send(self._threads(ids))
        self._send(self._settled(ids))

    def _windows(self, accounts: Mapping[str, Account]) -> Iterator[Command]:
        """Write each customer's window at the present time and at its last records' time: either clock may be right."""
        now = self._now_ms()
        changed: list[str] = []
        for customer, periods in windows_in(self._database, list(accounts)):
            if any(period != accounts[customer].period(period[0]) for period, _ in periods):
                changed.append(customer)
                continue
            wanted = {accounts[customer].period(now), periods[-1][0]}
            yield from (_window(customer, period, used) for period, used in periods if period in wanted)
        newest = newest_times(self._database, changed)
        for customer in changed:
            for period in {accounts[customer].period(now), accounts[customer].period(newest[customer])}:
                yield _window(customer, period, self._used(customer, period))

    def _used(self, customer: str, period: Period) -> Used:
        spent = spent_in(self._database, {customer: period})[customer]
        return Used(spent.tokens, spent.charge_nanousd, begun_in(self._database, customer, *period))

    def _end_users(self, accounts: Mapping[str, Account]) -> Iterator[Command]:
        """Write the tokens of each end user in the same periods, for every customer whose end users may be limited."""
        tiers = list(self._tiers.values())
        limiting = [name for name, account in accounts.items() if limits_end_users(account.overrides, tiers)]
        now = self._now_ms()
        for customer, newest in newest_times(self._database, limiting).items():
            bucket = redis_keys.bucket_of(customer)
            for start, end in {accounts[customer].period(now), accounts[customer].period(newest)}:
                for name, tokens in tokens_by_end_user(self._database, customer, start, end).items():
                    if tokens:
                        yield ["HSET", redis_keys.end_user(bucket, customer, start, name), "used", tokens]

    def _conversations(self, accounts: Mapping[str, Account]) -> Iterator[Command]:
        """Write the state of each open conversation, with the cap with which it began.

        Where its records do not state that cap, it gets the cap with which it would begin now in its own tier.
        """
        house = HouseLimits(0, self._bounds.conversation_tokens_max, 0, observes=self._bounds.observes)
        for conversation in conversations_in(self._database, list(accounts), self._now_ms()):
            cap = conversation.cap
            if cap is None:
                tier = self._tiers.get((split_version(conversation.menu_version or "")[0], conversation.tier or ""))
                cap = offer(
                    tier, conversation.menu_version, accounts[conversation.customer].overrides, house
                ).conversation_tokens_max
            yield _conversation(conversation, cap)

    def _threads(self, ids: Sequence[str]) -> Iterator[Command]:
        """Write the threads of the last hour's answers with the rest of their lifetime; threads still in Redis stay."""
        now = self._now_ms()
        for customer, thread, conversation, settled in kept_threads(self._database, ids, now - KEPT_MS):
            name = redis_keys.thread(redis_keys.bucket_of(customer), customer, thread)
            yield ["SET", name, conversation, "PX", min(settled + KEPT_MS - now, KEPT_MS), "NX"]

    def _settled(self, ids: Sequence[str]) -> Iterator[Command]:
        """Mark recent calls as settled, so that a worker's late retry changes no window."""
        since = self._now_ms() - self._bounds.call_ms - HOUR_MS
        for record_id, customer, time, charge in settled_since(self._database, ids, since):
            yield ["HSET", redis_keys.settled(redis_keys.bucket_of(customer)), record_id, packing.mark(charge, time)]

    def _accounts(self, ids: Sequence[str]) -> dict[str, Account]:
        query = select(customers.c.id, customers.c.period, customers.c.timezone, customers.c.overrides)
        with self._database.read() as connection:
            rows = connection.execute(query.where(customers.c.id.in_(ids))).all()
        return {row.id: Account(row.period, row.timezone, json.loads(row.overrides)) for row in rows}

    def _send(self, commands: Iterable[Command]) -> None:
        for chunk in batches(commands, AT_ONCE):
            with translated(), self._redis.pipeline(transaction=False) as batch:
                for command in chunk:
                    batch.execute_command(*command)  # type: ignore[no-untyped-call]
                batch.execute()


def _window(customer: str, period: Period, used: Used) -> Command:
    window = redis_keys.window(redis_keys.bucket_of(customer), customer, period[0])
    state = WindowState(used=used.tokens, spend_used=used.charge_nanousd, included=used.included)
    return ["HSET", window, "amounts", state.to_bytes()]


def _conversation(conversation: Conversation, cap: int) -> Command:
    name = redis_keys.conversation(
        redis_keys.bucket_of(conversation.customer), conversation.customer, conversation.name
    )
    state = ConversationState(
        first=conversation.first,
        last=conversation.last,
        live=0,
        cap=cap,
        used=conversation.tokens,
        held=0,
        input_used=conversation.input_tokens,
        input_held=0,
        was_charged=conversation.was_charged,
        tier=conversation.tier or "",
        version=conversation.menu_version or "",
    )
    return ["SET", name, state.to_bytes(), "PX", 2 * HOUR_MS]


def limits_end_users(overrides: Mapping[str, int], tiers: Iterable[Tier]) -> bool:
    """Return whether a customer's end users may be limited: by its overrides or by any of ``tiers``."""
    return "end_user_period_tokens_max" in overrides or any(
        tier.end_user_period_tokens_max is not None for tier in tiers
    )


def menus_ever(database: Database) -> list[Menu]:
    """Return every menu there ever was."""
    with database.read() as connection:
        bodies = connection.execute(select(menus.c.body)).scalars().all()
    return [Menu.from_json(json.loads(body)) for body in bodies]
