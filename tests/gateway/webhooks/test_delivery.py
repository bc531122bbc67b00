"""Thresholds are told once each, to a webhook that may fail, by couriers that may be many."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import redis

from gateway.clock import now_ms
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.webhooks.delivery import GIVEN_UP_AFTER_MS, Webhook, WebhookDelivery
from tests.gateway.holds.harness import HoldsHarness, holds_harness
from tests.serving import served

KEY = b"sixteen bytes and some more"
CALLS = 200


@dataclass
class Receiver:
    """A webhook that answers with ``statuses`` in their order, then with 204, and keeps what it was sent."""

    statuses: list[int] = field(default_factory=list)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["type"] == "http":
            body = (await receive())["body"]
            self.posts.append(({name.decode(): value.decode() for name, value in scope["headers"]}, body))
            status = self.statuses.pop(0) if self.statuses else 204
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body"})

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.posts]


@dataclass
class Clock:
    """Seconds and milliseconds that a test moves by hand, from now on."""

    passed_s: float = 0

    def monotonic(self) -> float:
        return self.passed_s

    def now_ms(self) -> int:
        return now_ms() + int(1000 * self.passed_s)


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with connect(valkey_url) as client:
        yield client


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as http:
        yield http


def notices(client: redis.Redis) -> int:
    with client.pipeline(transaction=False) as batch:
        for bucket in redis_keys.ALL_BUCKETS:
            batch.xlen(redis_keys.notices(bucket))
        return sum(batch.execute())


async def use(harness: HoldsHarness, customer: str, calls: int, tokens: int) -> None:
    """Make calls that are all settled at once."""
    holds = [await harness.reserve(f"{customer}_{number}", customer, tokens) for number in range(calls)]
    await asyncio.gather(*(harness.settlements.settle(hold, harness.outcome(tokens)) for hold in holds))


async def sold_out(valkey_url: str) -> None:
    """Use up a customer's tokens, and with the last of them its spend limit."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("only", price_nanousd=3, conversation_tokens_max=10, period_tokens_max=2000, spend_nanousd_max=600)
        harness.customer("acme", "only")
        await use(harness, "acme", CALLS, 10)


async def test_two_hundred_settlements_at_once_tell_each_threshold_once(
    valkey_url: str, client: redis.Redis, http: httpx.Client
) -> None:
    """80 % and 100 % of the tokens and of the spend, with what was used at that very moment; each post verifies."""
    await sold_out(valkey_url)
    receiver = Receiver()
    with served(receiver) as url:
        courier = WebhookDelivery(client, http, Webhook(url, KEY), now_ms=now_ms, monotonic=Clock().monotonic)
        while courier.turn():
            pass

    events = sorted((event["limit"], event["percent"], event["max"], event["used"]) for event in receiver.events)
    assert events == [
        ("period_tokens", 80, 2000, 1600),
        ("period_tokens", 100, 2000, 2000),
        ("spend", 80, 600, 480),
        ("spend", 100, 600, 600),
    ]
    assert len({event["id"] for event in receiver.events}) == 4
    for headers, body in receiver.posts:
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{signature}"
        assert headers["webhook-id"] == json.loads(body)["id"]
        assert abs(int(headers["webhook-timestamp"]) - now_ms() / 1000) < 300
    assert notices(client) == 0


async def test_a_webhook_that_fails_twice_is_sent_the_same_a_third_time(
    valkey_url: str, client: redis.Redis, http: httpx.Client
) -> None:
    """Later each time, the same id and bytes, until it is taken; then never again."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("only", conversation_tokens_max=10, period_tokens_max=10)
        harness.customer("acme", "only")
        await use(harness, "acme", 1, 8)
    receiver, clock = Receiver(statuses=[500, 302]), Clock()
    with served(receiver) as url:
        courier = WebhookDelivery(client, http, Webhook(url, KEY), now_ms=clock.now_ms, monotonic=clock.monotonic)
        assert not courier.turn()
        assert not courier.turn()  # too early
        assert len(receiver.posts) == 1
        clock.passed_s = 1
        assert not courier.turn()
        clock.passed_s = 2
        assert not courier.turn()  # too early: it waits twice as long
        clock.passed_s = 3
        assert courier.turn()
        assert not courier.turn()

    assert len(receiver.posts) == 3
    assert len({body for _, body in receiver.posts}) == 1
    assert notices(client) == 0


async def test_what_no_webhook_took_for_a_day_is_set_aside(
    valkey_url: str, client: redis.Redis, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """It leaves the stream, with a line in the log that says all of it."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("only", conversation_tokens_max=10, period_tokens_max=10)
        harness.customer("acme", "only")
        await use(harness, "acme", 1, 8)
    clock = Clock()
    courier = WebhookDelivery(
        client, http, Webhook("http://127.0.0.1:1", KEY), now_ms=clock.now_ms, monotonic=clock.monotonic
    )
    courier.turn()
    assert notices(client) == 1
    clock.passed_s = GIVEN_UP_AFTER_MS / 1000

    courier.turn()

    assert notices(client) == 0
    assert client.xlen(redis_keys.DEAD_NOTICES) == 1
    assert '"customer":"acme"' in caplog.text


async def test_one_courier_at_a_time_delivers(valkey_url: str, client: redis.Redis, http: httpx.Client) -> None:
    """While one is at it another does nothing, and without a webhook notices do not pile up."""
    await sold_out(valkey_url)
    receiver = Receiver()
    with served(receiver) as url:
        courier = WebhookDelivery(client, http, Webhook(url, KEY), now_ms=now_ms, monotonic=Clock().monotonic)
        with client.lock(redis_keys.COURIER_LOCK, timeout=60):
            assert not courier.turn()
    assert notices(client) == 4

    WebhookDelivery(client, http, None, now_ms=now_ms, monotonic=Clock().monotonic).turn()

    assert receiver.posts == []
    assert notices(client) == 0


@pytest.mark.parametrize(
    "entry",
    [
        {"limit": "spend"},
        {"publication": "{"},
        {"publication": "[]"},
        {"facts": "[" * 100_000},
        {b"\xff": b"\xfe"},
        {"publication": '{"seq":1,"version":"v","at":1e400,"effective":"now","moves":{}}'},
        {"publication": '{"seq":1,"version":"\\ud800","at":1,"effective":"now","moves":{}}'},
        {"publication": '{"seq":1,"version":"v","at":99999999999999999999,"effective":"now","moves":{}}'},
    ],
)
async def test_an_entry_that_is_no_notice_is_set_aside(
    entry: dict[Any, Any], valkey_url: str, client: redis.Redis, http: httpx.Client
) -> None:
    """The notices behind it are delivered."""
    client.xadd(redis_keys.notices(next(iter(redis_keys.ALL_BUCKETS))), entry, id="1-1")
    await sold_out(valkey_url)
    receiver, faults = Receiver(), [0]

    def fault() -> None:
        faults[0] += 1

    with served(receiver) as url:
        clock = Clock()
        courier = WebhookDelivery(
            client, http, Webhook(url, KEY), now_ms=clock.now_ms, monotonic=clock.monotonic, fault=fault
        )
        for _ in range(6):
            courier.turn()

    assert len(receiver.events) == 4
    assert notices(client) == 0
    assert client.xlen(redis_keys.DEAD_NOTICES) == 1
    assert faults == [1]


@pytest.mark.parametrize("url", ["http://h:port/x", "http://[/x", "nothing", "http://\x00/", "http://h..h/"])
async def test_an_address_that_is_none_costs_a_delivery_not_the_courier(
    url: str, valkey_url: str, client: redis.Redis, http: httpx.Client
) -> None:
    """The notice stays and is tried again, later each time."""
    await sold_out(valkey_url)
    clock = Clock()
    courier = WebhookDelivery(client, http, Webhook(url, KEY), now_ms=clock.now_ms, monotonic=clock.monotonic)
    waiting = notices(client)

    assert not courier.turn()
    assert notices(client) == waiting > 0


async def test_a_fault_that_nobody_foresaw_does_not_end_the_courier(client: redis.Redis, http: httpx.Client) -> None:
    """Its thread goes on, and says so each time."""
    stop, events = threading.Event(), [0]

    def broken() -> float:
        raise LookupError("a clock that fails")

    def fault() -> None:
        events[0] += 1
        stop.set()

    client.xadd(redis_keys.notices(next(iter(redis_keys.ALL_BUCKETS))), {"publication": PUBLISHED})
    courier = WebhookDelivery(
        client, http, Webhook("http://127.0.0.1:9/", KEY), now_ms=now_ms, monotonic=broken, fault=fault
    )

    courier.run(stop)

    assert events == [1]


PUBLISHED = '{"seq":1,"version":"v","at":1,"effective":"now","moves":{}}'
