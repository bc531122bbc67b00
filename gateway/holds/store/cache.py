"""The keys, customers and menus that a gateway remembers. They only save look-ups: scripts decide from Redis' state."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Generic, TypeVar

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text
from gateway.holds.store.connection import RedisConnection
from gateway.holds.terms import Customer, Timeline
from pricing.menus.menu import Menu

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """The most recently used entries, up to a bound."""

    def __init__(self, capacity: int) -> None:
        self._most = capacity
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: K, entry: V) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)


class Holder(tuple[str, str]):
    """The owner of a key: (customer, key id)."""

    __slots__ = ()


class LookupCache:
    """Keys, customers, publications and menus as last read from Redis."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._holders: Remembered[str, Holder] = Remembered(100_000)
        self._places: Remembered[str, str] = Remembered(100_000)
        self._customers: Remembered[str, Customer] = Remembered(100_000)
        self._menus: Remembered[str, Menu] = Remembered(256)
        self.timeline = Timeline()

    async def holder(self, bucket: str, digest: str) -> Holder | None:
        """Return the owner of a key, or None for a key that Redis does not know."""
        cached = self._holders.get(digest)
        if cached is None:
            customer, key_id = await self._connection.execute(
                "HMGET", redis_keys.api_key(bucket, digest), "customer", "key_id"
            )
            if customer is None or key_id is None:
                return None
            cached = Holder((text(customer), text(key_id)))
            self._holders.put(digest, cached)
        return cached

    async def place(self, digest: str) -> str | None:
        """Return the bucket of a key that was made elsewhere, or None for a key that Redis does not know."""
        cached = self._places.get(digest)
        if cached is None:
            bucket = await self._connection.execute("GET", redis_keys.place(digest))
            if bucket is None:
                return None
            cached = text(bucket)
            self._places.put(digest, cached)
        return cached

    def forget_key(self, digest: str) -> None:
        self._holders.forget(digest)

    async def customer(self, customer_id: str, *, fresh: bool = False) -> Customer | None:
        """Return a customer's record; ``fresh`` reads it again."""
        cached = None if fresh else self._customers.get(customer_id)
        if cached is None:
            body = await self._connection.execute(
                "HGET", redis_keys.customer(redis_keys.bucket_of(customer_id), customer_id), "body"
            )
            if body is None:
                return None
            cached = Customer.from_json(body)
            self._customers.put(customer_id, cached)
        return cached

    async def read_timeline(self) -> Timeline:
        """Read the publications again."""
        self.timeline = Timeline.from_json(await self._connection.execute("HGET", redis_keys.TIMELINE, "body"))
        return self.timeline

    async def menu(self, version: str) -> Menu | None:
        """Return an immutable menu."""
        cached = self._menus.get(version)
        if cached is None:
            body = await self._connection.execute("GET", redis_keys.menu(version))
            if body is None:
                return None
            cached = Menu.from_json(json.loads(body))
            self._menus.put(version, cached)
        return cached
