"""The operator at the other end of the admin API, and the clock on the gateway's wall."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
import redis

from gateway.holds.store import redis_keys
from gateway.holds.terms import Customer, Timeline

STATUS = {"GET": 200, "POST": 201, "PUT": 200, "PATCH": 200, "DELETE": 204}

NOON = 1_793_534_400_000
"""2026-11-01T12:00:00Z, a Sunday."""

MONDAY = 1_793_577_600_000
"""2026-11-02T00:00:00Z, where weeks and days begin in UTC."""


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    ms: int = NOON

    def __call__(self) -> int:
        return self.ms


class Operator:
    """Sends requests with the admin token and insists on the statuses of the contract."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        content = None if body is None else json.dumps(body)
        typed = {"content-type": "application/json"} if body is not None else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, path, content=content, headers=typed | named)

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        response = await self.send(method, path, body, **headers)
        assert response.status_code == STATUS[method], response.text
        return response.json() if response.content else None

    async def get(self, path: str) -> Any:
        return await self.request("GET", path)

    async def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return await self.request("POST", path, body, **headers)

    async def put(self, path: str, body: Any) -> Any:
        return await self.request("PUT", path, body)

    async def patch(self, path: str, body: Any) -> Any:
        return await self.request("PATCH", path, body)

    async def delete(self, path: str) -> None:
        await self.request("DELETE", path)

    async def refused(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """Return the problem that a request comes to, having looked that it is one."""
        return problem(await self.send(method, path, body, **headers))

    async def customer(self, **fields: Any) -> str:
        """Create a customer and return its id."""
        created = await self.post("/admin/customers", {"name": "Acme", **fields})
        found: str = created["id"]
        return found


def problem(response: httpx.Response) -> dict[str, Any]:
    """Return a refusal's body, having looked that it is problem+json and says its own status."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code"} <= body.keys()
    assert body["status"] == response.status_code
    assert body["detail"].endswith((".", "…"))
    return body


def fields_of(refusal: dict[str, Any]) -> set[str]:
    """Return the fields that a 422 names."""
    assert refusal["status"] == 422
    return {error["field"] for error in refusal["errors"]}


class Hot:
    """What the serving path finds in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client

    def customer(self, customer_id: str) -> Customer | None:
        body = self.redis.hget(redis_keys.customer(redis_keys.bucket_of(customer_id), customer_id), "body")
        return None if body is None else Customer.from_json(body)

    def key(self, digest: str) -> dict[str, str] | None:
        """Return what Redis says of a key, by its digest, wherever it is."""
        found = list(self.redis.scan_iter(match=f"*:key:{digest}", count=1000))
        if not found:
            return None
        return {name.decode(): value.decode() for name, value in self.redis.hgetall(found[0]).items()}

    def timeline(self) -> Timeline:
        return Timeline.from_json(self.redis.hget(redis_keys.TIMELINE, "body"))

    def menu(self, version: str) -> Any:
        return json.loads(self.redis.get(redis_keys.menu(version)) or "null")
