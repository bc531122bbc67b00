"""Makes Redis hold what the ledger says: notices a wiped or foreign server by its generation, and rebuilds it once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import redis
from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds import keys
from gateway.holds.announcement import Announcement, announcement
from gateway.holds.connect import fields, text, translated
from gateway.holds.offer import HouseLimits, offer
from gateway.holds.periods import PeriodKind, period_at
from gateway.holds.scripts import source
from gateway.ledger.conversations import DAY_MS, HOUR_MS, Conversation, open_conversations
from gateway.ledger.database import Database
from gateway.ledger.queries import Span, begun_in, newest_times, rows_in, spent_in, tokens_by_end_user
from gateway.ledger.rebuild_lock import LOCK_S, RebuildLock
from gateway.ledger.tables import customers, installation, menus, usage_records
from gateway.ledger.tide import Tide
from gateway.ledger.writer import Writer, unheard
from gateway.settings import Settings
from pricing.menu import Menu
from pricing.usage import UsageRecord

log = logging.getLogger(__name__)

FIRST = 1
ENSURE_WAIT_S = 5.0
"""How long a call waits for another process that rebuilds; then it is refused, to be made again."""

REBUILD_WAIT_S = 600.0
"""How long who was told to rebuild waits for that."""

HOT = ("key", "customer", "window", "end_user", "conversation", "pace", "hold")
"""What a rebuild writes anew; settled marks and usage streams are never thrown away."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the house gives where a tier says nothing, and how long what is on its way may take, ms."""

    conversation_tokens_max: int
    lease_ms: int
    call_ms: int
    observes: bool


def bounds_of(settings: Settings) -> Bounds:
    """Return what a rebuild needs to know of the house."""
    return Bounds(
        conversation_tokens_max=settings.conversation_tokens_max,
        lease_ms=int(settings.lease_s * 1000),
        call_ms=int(settings.call_deadline_s * 1000),
        observes=settings.mode == "observe",
    )


class Recovery:
    """The way back from the ledger to a hot state. Any process may call it; one does the work.

    Args:
        project: writes customers, keys and menus into Redis from the ledger.
        note: is told of records that a rebuild has appended to the ledger.
        lock_s: how long the lock of one that died keeps others waiting.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, or another process rebuilds, from every method; call
            it again.
    """

    def __init__(
        self,
        database: Database,
        client: redis.Redis,
        project: Callable[[], object],
        *,
        bounds: Bounds,
        now_ms: Callable[[], int],
        note: Callable[[Sequence[UsageRecord]], object] = unheard,
        lock_s: float = LOCK_S,
    ) -> None:
        self._database = database
        self._redis = client
        self._lock_s = lock_s
        self._project = project
        self._bounds = bounds
        self._now_ms = now_ms
        self._tide = Tide(client)
        self._writer = Writer(client, database, note=note)
        self._announce = client.register_script(source("announce"))

    def ensure(self) -> str:
        """Return the generation in force, after a rebuild where Redis does not hold it."""
        generation = self._generation()
        if self._is_whole(generation):
            return str(generation)
        return self.rebuild(unless_whole=True, wait_s=ENSURE_WAIT_S)

    def rebuild(self, *, unless_whole: bool = False, wait_s: float = REBUILD_WAIT_S) -> str:
        """Write the hot state anew and return its generation. Calls in flight keep their holds."""
        with RebuildLock(self._redis, wait_s=wait_s, lock_s=self._lock_s) as lock, translated():
            generation = self._generation()
            if unless_whole and self._is_whole(generation):
                return str(generation)
            # The first time there is nothing to lose; later something was lost, and the operator should know.
            log.log(logging.INFO if generation == FIRST else logging.WARNING, "writing the hot state from the ledger")
            return self._rebuild(generation + 1, lock)

    def _is_whole(self, generation: int) -> bool:
        """Return whether Redis holds this generation, and has heard of all that is in the ledger."""
        return self._in_redis() == {str(generation)} and self._tide.is_high(self._database)

    def _rebuild(self, generation: int, lock: RebuildLock) -> str:
        """Rebuild, and stop before the next step where the lock is lost: another one begins anew, and wipes what is half."""
        with self._database.write() as connection:
            connection.execute(update(installation).values(generation=generation))
        self._stop_all_scripts()
        self._tide.restore(self._database)
        while self._writer.turn():
            lock.check()
        in_flight = self._holds_not_in_the_book()
        self._wipe(lock)
        for step in (
            self._project,
            self._write_windows,
            self._write_end_users,
            self._write_conversations,
            self._mark_settled,
        ):
            lock.check()
            step()
        lock.check()
        self._put_in_force(generation)
        for told in in_flight:
            arguments = told.arguments(str(generation), self._bounds.lease_ms, self._now_ms())
            self._announce(keys=told.keys(), args=arguments)
        return str(generation)

    def _generation(self) -> int:
        with self._database.read() as connection:
            found = connection.execute(select(installation.c.generation)).scalar_one_or_none()
        if found is not None:
            return int(found)
        with self._database.write() as connection:
            # The first worker and the bookkeeper come here at once.
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            first = dialect.insert(installation).values(id=1, generation=FIRST, created=self._now_ms())
            connection.execute(first.on_conflict_do_nothing())
        return self._generation()

    def _in_redis(self) -> set[str]:
        with translated(), self._redis.pipeline(transaction=False) as batch:
            for bucket in keys.ALL_BUCKETS:
                batch.hget(keys.state(bucket), "generation")
            return {found.decode() if found else "" for found in batch.execute()}

    def _stop_all_scripts(self) -> None:
        """Leave no generation in force: from here on nothing is admitted or settled until the new one is."""
        with self._redis.pipeline(transaction=False) as batch:
            for bucket in keys.ALL_BUCKETS:
                batch.hdel(keys.state(bucket), "generation")
            batch.execute()

    def _put_in_force(self, generation: int) -> None:
        with self._redis.pipeline(transaction=False) as batch:
            for bucket in keys.ALL_BUCKETS:
                batch.hset(keys.state(bucket), "generation", str(generation))
            batch.execute()

    def _holds_not_in_the_book(self) -> list[Announcement]:
        """Return the holds that Redis still has of calls without a record."""
        found: list[Announcement] = []
        for bucket in keys.ALL_BUCKETS:
            for name in self._redis.zrange(keys.holds(bucket), 0, -1):
                hold_id = text(name)
                hold = fields(self._redis.hgetall(keys.hold(bucket, hold_id)))
                if hold and hold["state"] == "live" and not self._is_booked(hold_id):
                    found.append(announcement(hold))
            self._redis.delete(keys.holds(bucket))
        return found

    def _is_booked(self, record_id: str) -> bool:
        with self._database.read() as connection:
            query = select(usage_records.c.seq).where(usage_records.c.id == record_id)
            return connection.execute(query).first() is not None

    def _wipe(self, lock: RebuildLock) -> None:
        for kind in HOT:
            batch: list[bytes] = []
            for name in self._redis.scan_iter(match=f"{{b??}}:{kind}:*", count=1000):
                batch.append(name)
                if len(batch) == 1000:
                    lock.check()
                    self._unlink(batch)
            lock.check()
            self._unlink(batch)

    def _unlink(self, names: list[bytes]) -> None:
        with self._redis.pipeline(transaction=False) as batch:
            for name in names:
                batch.unlink(name)
            batch.execute()
        names.clear()

    def _write_windows(self) -> None:
        """Write each customer's window of now, and that of its last records: another clock may be the right one."""
        for periods in (dict(self._periods(self._now_ms())), dict(self._latest_periods())):
            spent = spent_in(self._database, periods)
            with self._redis.pipeline(transaction=False) as batch:
                for customer, used in spent.items():
                    start, end = periods[customer]
                    if used.tokens or used.charge_nanousd:
                        window = keys.window(keys.bucket_of(customer), customer, start)
                        begun = begun_in(self._database, customer, start, end)
                        amounts = {"used": used.tokens, "spend_used": used.charge_nanousd, "included": begun}
                        batch.hset(window, items=[part for name, amount in amounts.items() for part in (name, amount)])
                batch.execute()

    def _write_end_users(self) -> None:
        """Write what each end user has had in the period, of every customer whose end users may be limited."""
        periods = [dict(self._periods(self._now_ms())), dict(self._latest_periods())]
        for customer in self._limiting_end_users():
            bucket = keys.bucket_of(customer)
            for start, end in {each[customer] for each in periods if customer in each}:
                with self._redis.pipeline(transaction=False) as batch:
                    for name, tokens in tokens_by_end_user(self._database, customer, start, end).items():
                        if tokens:
                            batch.hset(keys.end_user(bucket, customer, start, name), "used", tokens)
                    batch.execute()

    def _limiting_end_users(self) -> list[str]:
        """Return the customers that may have a limit for each end user: all, if a tier that ever was sold has one."""
        any_tier_does = any(
            tier.end_user_period_tokens_max is not None for menu in self._menus() for tier in menu.tiers
        )
        with self._database.read() as connection:
            rows = connection.execute(select(customers.c.id, customers.c.overrides)).all()
        return [
            row.id
            for row in rows
            if any_tier_does or json.loads(row.overrides).get("end_user_period_tokens_max") is not None
        ]

    def _periods(self, now: int) -> Iterable[tuple[str, tuple[int, int]]]:
        with self._database.read() as connection:
            rows = connection.execute(select(customers.c.id, customers.c.period, customers.c.timezone)).all()
        for row in rows:
            kind: PeriodKind = row.period
            yield row.id, period_at(kind, row.timezone, now)

    def _latest_periods(self) -> Iterable[tuple[str, tuple[int, int]]]:
        """Yield the period of each customer's last record."""
        with self._database.read() as connection:
            rows = connection.execute(select(customers.c.id, customers.c.period, customers.c.timezone)).all()
        newest = newest_times(self._database, (row.id for row in rows))
        for row in rows:
            if row.id in newest:
                kind: PeriodKind = row.period
                yield row.id, period_at(kind, row.timezone, newest[row.id])

    def _write_conversations(self) -> None:
        cap_of = self._caps()
        with self._redis.pipeline(transaction=False) as batch:
            for one in open_conversations(self._database, self._now_ms()):
                cap = cap_of(one) if one.cap is None else one.cap
                name = keys.conversation(keys.bucket_of(one.customer), one.customer, one.name)
                batch.hset(name, items=_fields(one, cap))
                batch.pexpire(name, 2 * HOUR_MS)
            batch.execute()

    def _caps(self) -> Callable[[Conversation], int]:
        """Return what tells the cap of a conversation whose records do not: as it would begin now, in its own tier."""
        tiers = {(menu.version, tier.name): tier for menu in self._menus() for tier in menu.tiers}
        with self._database.read() as connection:
            rows = connection.execute(select(customers.c.id, customers.c.overrides)).all()
        own = {row.id: json.loads(row.overrides) for row in rows}
        house = HouseLimits(0, self._bounds.conversation_tokens_max, 0, observes=self._bounds.observes)

        def cap_of(one: Conversation) -> int:
            tier = tiers.get((one.menu_version or "", one.tier or ""))
            return offer(tier, one.menu_version, own.get(one.customer, {}), house).conversation_tokens_max

        return cap_of

    def _menus(self) -> list[Menu]:
        """Return every menu there ever was."""
        with self._database.read() as connection:
            bodies = connection.execute(select(menus.c.body)).scalars().all()
        return [Menu.from_json(json.loads(body)) for body in bodies]

    def _mark_settled(self) -> None:
        """Mark recent calls as settled, so that a worker's late repetition changes no window."""
        since = self._now_ms() - self._bounds.call_ms - HOUR_MS
        columns = (
            usage_records.c.time,
            usage_records.c.id,
            *(usage_records.c[name] for name in ("customer", "charge_nanousd")),
        )
        with self._redis.pipeline(transaction=False) as batch:
            for row in rows_in(self._database, columns, Span(since=since)):
                reply = json.dumps(["done", str(row.charge_nanousd), "", str(row.time)])
                batch.set(keys.mark(keys.bucket_of(row.customer), row.id), reply, px=DAY_MS)
            batch.execute()


def _fields(conversation: Conversation, cap: int) -> list[str]:
    return [
        *("first", str(conversation.first), "last", str(conversation.last)),
        *("tier", conversation.tier or "", "version", conversation.menu_version or ""),
        *("cap", str(cap), "charged", "1" if conversation.was_charged else "0"),
        *("used", str(conversation.tokens), "input_used", str(conversation.input_tokens)),
    ]
