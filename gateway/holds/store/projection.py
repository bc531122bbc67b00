"""Writes the customers, keys and menus that SQL has into Redis, where the serving path looks them up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import redis

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.packing import WindowState
from gateway.holds.store.scripts import ScriptCall, run_all, run_joined, source
from gateway.holds.terms import Customer, Publication, Timeline
from pricing.menus.menu import Menu


@dataclass(frozen=True, slots=True)
class Admitted:
    """A valid key, by the SHA-256 of its text. It is valid until ``expires``, ms; without end where that is None."""

    bucket: str
    digest: str
    customer: str
    key_id: str
    expires: int | None
    is_foreign: bool = False
    """Whether the key was made elsewhere, so that its text does not name its bucket."""


@dataclass(slots=True)
class PeriodUse:
    """The sums of a customer's records in one period.

    Billed output tokens, nano-units, conversations that its subscription included, and tokens by end user where those
    are limited.
    """

    tokens: int = 0
    charge_nanousd: int = 0
    included: int = 0
    by_user: Counter[str | None] = field(default_factory=Counter)
    read_to: str = ""
    """The last id of the stream of records before the records were read."""


class Projection:
    """Writes the admin side's changes into Redis. Everything it writes can be written again from SQL.

    Raises:
        MeteringUnavailable: Redis is unavailable, from every method.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._put_newer = client.register_script(source("project"))
        self._change_period = client.register_script(source("change_period"))
        self._advance = client.register_script(source("advance"))

    def put_customers(self, customers: Sequence[Customer]) -> None:
        """Write customers, each unless Redis already has a later revision of it."""
        put: list[ScriptCall] = [
            ([redis_keys.customer(redis_keys.bucket_of(customer.id), customer.id)], [customer.rev, customer.to_json()])
            for customer in customers
        ]
        with translated():
            run_all(self._redis, self._put_newer, put)

    def customers(self, ids: Sequence[str]) -> list[Customer]:
        """Return those customers of ``ids`` that Redis has, as Redis has them."""
        with translated(), self._redis.pipeline(transaction=False) as batch:
            for customer_id in ids:
                batch.hget(redis_keys.customer(redis_keys.bucket_of(customer_id), customer_id), "body")
            return [Customer.from_json(text(body)) for body in batch.execute() if body is not None]

    def change_period(self, customer: Customer, period: tuple[int, int], used: PeriodUse) -> str | None:
        """Put terms with another period or time zone in force, and begin the new window with all its use and holds.

        Args:
            period: the period of the new terms, ms.
            used: the sums of the period's records, including waiting records, up to an entry of the stream.

        Returns:
            The last id of the bucket's stream of records if more records have come since, so that ``used`` has to be
            added up again; None if these or later terms are in force.
        """
        bucket, start = redis_keys.bucket_of(customer.id), period[0]
        users = {redis_keys.end_user(bucket, customer.id, start, name): tokens for name, tokens in used.by_user.items()}
        window = redis_keys.window(bucket, customer.id, start)
        names = [
            redis_keys.inflight(bucket),
            redis_keys.usage(bucket),
            redis_keys.customer(bucket, customer.id),
            window,
        ]
        state = WindowState(used=used.tokens, spend_used=used.charge_nanousd, included=used.included)
        prefixes = [
            window.removesuffix(str(start)),
            redis_keys.end_user(bucket, customer.id, start, "").rpartition(":")[0],
        ]
        arguments: list[Any] = [
            used.read_to,
            customer.rev,
            customer.to_json(),
            *period,
            state.to_bytes(),
            prefixes[0],
            f"{prefixes[1]}:",
        ]
        with translated():
            reply = self._change_period(keys=[*names, *users], args=[*arguments, *users.values()])
        return text(reply[1]) if reply[0] == b"moved" else None

    def waiting_records(self, bucket: str) -> tuple[str, list[tuple[str, dict[bytes, bytes]]]]:
        """Return the name of a bucket's stream of records, and its entries, oldest first: id and fields."""
        stream = redis_keys.usage(bucket)
        with translated():
            entries = cast(list[Any], self._redis.xrange(stream))
        return stream, [(text(name), entry) for name, entry in entries]

    def put_keys(self, admitted: Iterable[Admitted], shut_out: Iterable[tuple[str, str]] = ()) -> None:
        """Make keys valid; the keys ``shut_out``, by bucket and digest, are invalid from the next call on.

        The entry that names the bucket of a key made elsewhere stays when the key is removed: alone it admits no call.
        """
        with translated(), self._redis.pipeline(transaction=False) as batch:
            for key in admitted:
                if key.is_foreign:
                    batch.set(redis_keys.place(key.digest), key.bucket)
                expires = "" if key.expires is None else str(key.expires)
                fields = ["customer", key.customer, "key_id", key.key_id, "expires", expires]
                batch.hset(redis_keys.api_key(key.bucket, key.digest), items=fields)
            for bucket, digest in shut_out:
                batch.delete(redis_keys.api_key(bucket, digest))
            batch.execute()

    def put_menu(self, menu: Menu) -> None:
        """Write one immutable menu."""
        with translated():
            self._redis.set(redis_keys.menu(menu.version), json.dumps(menu.to_json(), separators=(",", ":")))

    def write_notice(self, publication: Publication) -> None:
        """Write a notice of a publication for the webhook; its number and moment distinguish it from others."""
        publication_json = json.dumps(asdict(publication), separators=(",", ":"))
        with translated():
            self._redis.xadd(redis_keys.notices(redis_keys.ALL_BUCKETS[0]), {"publication": publication_json})

    def put_timeline(self, timeline: Timeline) -> None:
        """Put the publications in force: the list first, then its number in each bucket.

        A call between the two writes finds its bucket's old number and runs under the old menu, from start to end.
        """
        with translated():
            self._put_newer(keys=[redis_keys.TIMELINE], args=[timeline.rev, timeline.to_json()])
            run_joined(
                self._redis,
                self._advance,
                [([redis_keys.state(name)], ["timeline", timeline.rev, 0]) for name in redis_keys.ALL_BUCKETS],
            )
