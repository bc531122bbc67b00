"""The cost of creating many customers with a key each in one request, and of repeating the request.

``python -m benchmarks.gateway.bulk`` prints CPU seconds of the admin side's process with its SQLite, and of a Valkey
that syncs each write to its disk.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
from fastapi import FastAPI
from redis import Redis

from gateway.admin.api.routes import AdminServices
from gateway.admin.api.wrong_tokens import WrongTokens
from gateway.admin.router import build_admin
from gateway.catalog.admin_tokens import AdminTokens, ensure_admin_token
from gateway.clock import now_ms
from gateway.holds.store.clients import connect
from gateway.holds.store.projection import Projection
from gateway.ledger.database import Database
from gateway.settings import Settings
from tests.servers import short_directory, valkey_in

CUSTOMERS = 1_000


def services_on(database: Database, client: Redis) -> AdminServices:
    """Return the services of the admin side, on a ledger and a Redis."""
    return AdminServices(
        database=database,
        projection=Projection(client),
        redis=client,
        tokens=AdminTokens(database, time.monotonic),
        wrong_tokens=WrongTokens(database, now_ms=now_ms, monotonic=time.monotonic, sleep=asyncio.sleep),
        now_ms=now_ms,
        random_bytes=os.urandom,
        settings=Settings(),
    )


async def send(services: AdminServices, token: str, client: Redis, tier: str) -> None:
    """Send the customers twice and print what each time cost."""
    app = FastAPI(openapi_url=None)
    build_admin(app, services)
    rows = [
        {"name": f"Customer {place}", "external_id": f"crm-{place}", "tier": tier, "keys": [{"name": "production"}]}
        for place in range(CUSTOMERS)
    ]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway", headers={"authorization": f"Bearer {token}"}
    ) as caller:
        (await caller.put(f"/admin/tiers/{tier}", json={"price_nanousd": 1_000})).raise_for_status()
        for step in ("created", "the same again"):
            own_cpu, valkey_cpu = time.process_time(), cpu_of(client)
            body = {"upsert": True, "customers": rows}
            answer = await caller.post("/admin/customers/bulk", json=body, timeout=120)
            own_cpu, valkey_cpu = time.process_time() - own_cpu, cpu_of(client) - valkey_cpu
            assert answer.status_code == 201, answer.text[:300]
            print(f"{step:15} {len(rows)} customers: {own_cpu:.2f} CPU s, Valkey {valkey_cpu:.2f}")


def cpu_of(client: Redis) -> float:
    """Return the CPU seconds that a Valkey has used so far."""
    info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main() -> None:
    """Measure."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client = stack.enter_context(connect(stack.enter_context(valkey_in(stack.enter_context(short_directory())))))
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "always")
        database = stack.enter_context(closing(Database(f"sqlite:///{directory / 'ledger.sqlite'}")))
        database.migrate()
        token = ensure_admin_token(database, None, 0)
        assert token is not None
        asyncio.run(send(services_on(database, client), token, client, "basic"))


if __name__ == "__main__":
    main()
