"""The whole loop in one process: gateways, bookkeeper and upstream on real ports, real Valkey, a real ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway import bookkeeper
from gateway.app import build
from gateway.catalog.admin_tokens import new_admin_token
from gateway.clock import now_ms
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, fields
from gateway.holds.store.packing import WINDOW, WindowState
from gateway.ledger.database import Database
from gateway.ledger.read.read_your_writes import wait_until_booked
from gateway.settings import Settings
from gateway.simulator.model_server import Law
from gateway.simulator.model_server import build as build_simulator
from tests.buckets import all_in_flight
from tests.servers import new_ledger
from tests.serving import served
from tests.waiting import until

EACH = 20
"""Simultaneous calls of each client, where there are many."""

FAST = Law(tokens_per_s=float("inf"), first_token_s=0, mean_tokens=40)


@dataclass(frozen=True)
class Sold:
    """A customer and the key to call with."""

    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@dataclass(frozen=True)
class Rig:
    """What a test uses to drive the loop. ``urls`` are the gateways'; ``upstream`` is the model's address."""

    urls: list[str]
    upstream: str
    settings: Settings
    admin: httpx.Client

    @property
    def url(self) -> str:
        return self.urls[0]

    def tier(self, name: str, **fields: Any) -> None:
        """Create or replace a tier."""
        answer = self.admin.put(f"/admin/tiers/{name}", json=fields)
        assert answer.status_code in (200, 201), answer.text

    def customer(self, tier: str | None = None, **fields: Any) -> Sold:
        """Create a customer with a key."""
        created = self.admin.post("/admin/customers", json={"name": "Acme", "tier": tier, **fields})
        assert created.status_code == 201, created.text
        customer_id = created.json()["id"]
        key = self.admin.post(f"/admin/customers/{customer_id}/keys", json={})
        assert key.status_code == 201, key.text
        return Sold(customer_id, key.json()["key"])

    def account(self, who: Sold) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/v1/account", headers=who.headers, timeout=60)
        assert answer.status_code == 200, answer.text
        account: dict[str, Any] = answer.json()
        return account

    def until_booked(self) -> None:
        """Wait until every call settled by now is in the ledger, however slow the machine is."""
        if self.settings.redis_url:
            with connect(self.settings.redis_url) as client:
                wait_until_booked(client, within_s=30)

    def usage(self, who: Sold | None = None) -> list[dict[str, Any]]:
        """Return every usage record from the admin API, once every call settled by now is in the ledger."""
        self.until_booked()
        records: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 1000} | ({"customer": who.id} if who else {})
        while True:
            page = self.admin.get("/admin/usage", params=query)
            assert page.status_code == 200, page.text
            records += page.json()["data"]
            if page.json()["next_cursor"] is None:
                return records
            query["cursor"] = page.json()["next_cursor"]

    def counted(self) -> dict[str, Any]:
        """Return the simulator's own count."""
        count: dict[str, Any] = httpx.get(self.upstream + "/simulator/count").json()
        return count

    def open_holds(self) -> int:
        """Return how many holds there are, in all buckets."""
        with connect(self.settings.redis_url) as client:
            return sum(map(len, all_in_flight(client).values()))

    def windows(self) -> list[WindowState]:
        with connect(self.settings.redis_url) as client, client.pipeline(transaction=False) as batch:
            for name in client.scan_iter("*:window:*", count=1_000):
                batch.hmget(name, list(WINDOW))
            return [WindowState.read(reply) for reply in batch.execute()]

    def until_nothing_is_held(self, deadline_s: float = 10) -> None:
        until(lambda: self.open_holds() == 0, deadline_s)
        assert all(window.held == 0 for window in self.windows())
        with connect(self.settings.redis_url) as client:
            assert fields(client.hgetall(redis_keys.BREACHES)) == {}


@contextmanager
def rig(
    redis_url: str,
    ledger_url: str,
    data_dir: Path,
    *,
    gateways: int = 1,
    law: Law = FAST,
    upstream: Any = None,
    books_redis_url: str | None = None,
    books_clock: Callable[[], float] = time.monotonic,
    **settings: Any,
) -> Iterator[Rig]:
    """Run the loop; ``upstream`` is an ASGI app in place of the simulated model, or the address of a model.

    The bookkeeper may have its own address of Redis and its own clock.
    """
    with ExitStack() as stack:
        app = upstream if upstream is not None else build_simulator(law)
        model = app if isinstance(app, str) else stack.enter_context(served(app))
        configured = Settings(
            upstream_url=f"{model}/v1", redis_url=redis_url, database_url=ledger_url, data_dir=data_dir, **settings
        )
        database = Database(ledger_url)
        if database.is_sqlite and not Path(str(database.url.database)).exists():
            new_ledger(Path(str(database.url.database)))
        database.migrate()
        token = new_admin_token(database, now_ms())
        database.close()
        apart = configured.model_copy(update={"redis_url": books_redis_url or redis_url})
        stack.enter_context(_books(apart, books_clock))
        urls = [stack.enter_context(served(build(configured, f"w_{number}").public)) for number in range(gateways)]
        admin = httpx.Client(base_url=urls[0], headers={"authorization": f"Bearer {token}"}, timeout=120)
        yield Rig(urls, model, configured, stack.enter_context(admin))


@asynccontextmanager
async def clients(at_once: int, **settings: Any) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Yield clients for ``at_once`` calls, few for each: at the end of a call, httpx visits all calls of its client."""
    async with AsyncExitStack() as stack:
        clients_made = [
            httpx.AsyncClient(limits=httpx.Limits(max_connections=None), **settings) for _ in range(1 + at_once // EACH)
        ]
        yield [await stack.enter_async_context(client) for client in clients_made]


@contextmanager
def _books(settings: Settings, clock: Callable[[], float]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=bookkeeper.run, args=(settings, stop, clock))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
