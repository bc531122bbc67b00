"""Writes what SQL knows of customers, keys and menus into Redis, where the serving path looks it up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import redis

from gateway.holds import keys
from gateway.holds.connect import text, translated
from gateway.holds.scripts import source
from gateway.holds.terms import Customer, Publication, Timeline
from pricing.menu import Menu


class Projection:
    """The admin side's way into Redis. Everything it writes can be written again from SQL.

    Raises:
        MeteringUnavailable: Redis is not to be had, from every method.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._put_newer = client.register_script(source("project"))
        self._advance = client.register_script(source("advance"))

    def put_customer(self, customer: Customer) -> None:
        """Write a customer unless Redis already has a later one."""
        bucket = keys.bucket_of(customer.id)
        with translated():
            self._put_newer(keys=[keys.customer(bucket, customer.id)], args=[customer.rev, customer.to_json()])

    def customer(self, customer_id: str) -> Customer | None:
        """Return a customer as Redis has it."""
        with translated():
            body = self._redis.hget(keys.customer(keys.bucket_of(customer_id), customer_id), "body")
        return None if body is None else Customer.from_json(text(body))

    def put_window(self, customer_id: str, period: tuple[int, int], amounts: Mapping[str, int]) -> None:
        """Begin a customer's window with what is used of it already; one that was begun before stays as it is."""
        window = keys.window(keys.bucket_of(customer_id), customer_id, period[0])
        with translated(), self._redis.pipeline(transaction=True) as batch:
            for name, amount in amounts.items():
                batch.hsetnx(window, name, str(amount))
            batch.execute()

    def put_key(self, bucket: str, digest: str, *, customer: str, key_id: str, expires: int | None) -> None:
        """Let a key in: ``digest`` is the SHA-256 of its text, ``expires`` in ms or None."""
        fields = ["customer", customer, "key_id", key_id, "expires", "" if expires is None else str(expires)]
        with translated():
            self._redis.hset(keys.api_key(bucket, digest), items=fields)

    def put_place(self, bucket: str, digest: str) -> None:
        """Say where a key stands that was made elsewhere. It stays when the key goes: alone it lets nobody in."""
        with translated():
            self._redis.set(keys.place(digest), bucket)

    def drop_key(self, bucket: str, digest: str) -> None:
        """Shut a key out from the next call on."""
        with translated():
            self._redis.delete(keys.api_key(bucket, digest))

    def put_menu(self, menu: Menu) -> None:
        """Write one immutable menu."""
        with translated():
            self._redis.set(keys.menu(menu.version), json.dumps(menu.to_json(), separators=(",", ":")))

    def tell_of(self, publication: Publication) -> None:
        """Leave a notice of a publication for the webhook; it is told apart from others by its number and moment."""
        told = json.dumps(asdict(publication), separators=(",", ":"))
        with translated():
            self._redis.xadd(keys.notices(keys.ALL_BUCKETS[0]), {"publication": told})

    def put_timeline(self, timeline: Timeline) -> None:
        """Put the publications in force: the list first, then its number in each bucket.

        A call between the two finds its bucket's old number and runs under the old menu, whole.
        """
        with translated():
            self._put_newer(keys=[keys.TIMELINE], args=[timeline.rev, timeline.to_json()])
            names = [keys.state(bucket) for bucket in keys.ALL_BUCKETS]
            if isinstance(self._redis, redis.RedisCluster):  # redis-py sends no scripts in a cluster's pipelines
                for name in names:
                    self._advance(keys=[name], args=["timeline", timeline.rev, 0])
                return
            with self._redis.pipeline(transaction=False) as batch:
                for name in names:
                    self._advance(keys=[name], args=["timeline", timeline.rev, 0], client=batch)
                batch.execute()
