"""A Redis restarted, wiped or set back is noticed before a call is admitted, and is rebuilt from the ledger."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, text
from tests.loop.rig import Rig, Sold, rig
from tests.servers import short_directory, valkey_in
from tests.waiting import until

BODY: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}
QUOTA = 10_000


class Server:
    """A Valkey that can be stopped, changed on disk and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        self.url = self._running.enter_context(valkey_in(self.directory))

    def stop(self) -> None:
        self._running.close()

    def copy_to(self, place: Path) -> None:
        shutil.copytree(self.directory / "appendonlydir", place)

    def put_back(self, place: Path | None) -> None:
        """Replace the data on disk by an earlier copy, or by nothing."""
        shutil.rmtree(self.directory / "appendonlydir")
        if place is not None:
            shutil.copytree(place, self.directory / "appendonlydir")


@pytest.fixture
def server() -> Iterator[Server]:
    with short_directory() as directory:
        running = Server(directory)
        yield running
        running.stop()


@pytest.fixture
def loop(server: Server, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(server.url, sqlite_url, tmp_path, gateways=2) as running:
        running.tier("open", conversation_tokens_max=400, period_tokens_max=QUOTA, price_nanousd=3)
        yield running


def say(loop: Rig, who: Sold, gateway: int = 0, conversation: str = "talk") -> httpx.Response:
    headers = {**who.headers, "x-conversation-id": conversation}
    return httpx.post(f"{loop.urls[gateway]}/v1/chat/completions", json=BODY, headers=headers, timeout=30)


def generation(loop: Rig) -> str:
    with connect(loop.settings.redis_url) as client:
        return text(client.hget(redis_keys.state("00"), "generation"))


def said_and_booked(loop: Rig, who: Sold, calls: int) -> None:
    before = len(loop.usage(who))
    for number in range(calls):
        assert say(loop, who, gateway=number % 2).status_code == 200
    until(lambda: len(loop.usage(who)) == before + calls)


def agrees(loop: Rig, who: Sold) -> None:
    """Assert that the account agrees with the ledger, and that a conversation paid for is not sold again."""
    for gateway in (0, 1):
        answer = until(lambda gateway=gateway: _served(say(loop, who, gateway)))
        assert answer.headers["x-tokencap-charge-nanousd"] == "0"
    loop.until_nothing_is_held()
    used = sum(record["billed_output_tokens"] for record in loop.usage(who))
    period = loop.account(who)["period"]
    assert (period["tokens_used"], period["tokens_remaining"]) == (used, QUOTA - used)
    assert loop.account(who)["spend"]["used_nanousd"] == 3


def _served(answer: httpx.Response) -> httpx.Response | None:
    assert answer.status_code in (200, 503), answer.text
    return answer if answer.status_code == 200 else None


def test_a_restart_that_lost_nothing_rebuilds_nothing(loop: Rig, server: Server) -> None:
    who = loop.customer("open")
    said_and_booked(loop, who, 4)
    before = generation(loop)
    server.stop()
    server.start()

    agrees(loop, who)
    assert generation(loop) == before


def test_a_wiped_server_is_rebuilt_from_the_ledger(loop: Rig, server: Server) -> None:
    who = loop.customer("open")
    said_and_booked(loop, who, 4)
    before = generation(loop)
    server.stop()
    server.put_back(None)
    server.start()

    agrees(loop, who)
    assert int(generation(loop)) == int(before) + 1


def test_an_old_snapshot_is_noticed_and_rebuilt_from_the_ledger(loop: Rig, server: Server, tmp_path: Path) -> None:
    """The earlier state is whole and consistent; only the ledger shows that it is old."""
    who = loop.customer("open")
    said_and_booked(loop, who, 4)
    before = generation(loop)
    server.copy_to(tmp_path / "snapshot")
    said_and_booked(loop, who, 6)
    server.stop()
    server.put_back(tmp_path / "snapshot")
    server.start()

    agrees(loop, who)
    assert int(generation(loop)) == int(before) + 1


def test_a_bucket_of_the_past_is_written_anew_by_itself(loop: Rig) -> None:
    """A node of a cluster may fall back like this: the other buckets go on serving, and the repair is automatic."""
    who = other = loop.customer("open")
    while redis_keys.bucket_of(other.id) == redis_keys.bucket_of(who.id):
        other = loop.customer("open")
    said_and_booked(loop, who, 4)
    said_and_booked(loop, other, 2)
    before = generation(loop)
    with connect(loop.settings.redis_url) as client:
        back, lasting = redis_keys.bucket_of(who.id), redis_keys.state(redis_keys.bucket_of(other.id))
        was = {name: client.dump(name) for name in client.scan_iter(f"{{b{back}}}:*")}
        said_and_booked(loop, who, 6)
        for name in client.scan_iter(f"{{b{back}}}:*"):
            client.delete(name)
        for name, value in was.items():
            client.restore(name, 0, value)
        served = [text(client.hget(lasting, "generation"))]
        until(lambda: served.append(text(client.hget(lasting, "generation"))) or _says_what_is_booked(loop, who))

    agrees(loop, who)
    agrees(loop, other)
    assert set(served) == {before}, "the other bucket was in force all the time"
    assert generation(loop) == before


def test_a_bucket_of_the_past_sells_nothing_beyond_its_records(server: Server, ledger_url: str, tmp_path: Path) -> None:
    """Neither gateway admits a call by the window of the old state, although the bookkeeper has not checked it yet."""
    one_look = partial(float, 0)  # the bookkeeper checks the buckets only at its start, and moves records all the time
    with rig(server.url, ledger_url, tmp_path, gateways=2, books_clock=one_look) as loop:
        loop.tier("small", period_tokens_max=60)
        who = loop.customer("small")
        own = f"{{b{redis_keys.bucket_of(who.id)}}}:*"
        said_and_booked(loop, who, 1)
        with connect(server.url) as client:
            was = {name: client.dump(name) for name in client.scan_iter(own)}
            answered = 1
            while say(loop, who).status_code == 200:
                answered += 1
            until(lambda: len(loop.usage(who)) == answered)
            client.delete(*client.scan_iter(own))
            for name, value in was.items():
                client.restore(name, 0, value)

        after = [say(loop, who, gateway).status_code for gateway in (1, 0)]

        assert after == [429, 429]
        assert answered >= 3
        assert len(loop.usage(who)) == answered
        period = loop.account(who)["period"]
        assert period["tokens_used"] == sum(record["billed_output_tokens"] for record in loop.usage(who))


def _says_what_is_booked(loop: Rig, who: Sold) -> bool:
    used = sum(record["billed_output_tokens"] for record in loop.usage(who))
    return bool(loop.account(who)["period"]["tokens_used"] == used)


def test_while_another_process_rebuilds_calls_are_refused_and_the_gateway_is_not_ready(loop: Rig) -> None:
    """No caller waits in silence: each gets 503 with a Retry-After."""
    who = loop.customer("open")
    said_and_booked(loop, who, 1)
    with connect(loop.settings.redis_url) as client:
        client.set(redis_keys.REBUILD_LOCK, "another's")
        for bucket in redis_keys.ALL_BUCKETS:
            client.hdel(redis_keys.state(bucket), "generation")

        ready, refused = httpx.get(f"{loop.url}/readyz", timeout=30), say(loop, who)
        client.delete(redis_keys.REBUILD_LOCK)

    assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    agrees(loop, who)
    assert until(lambda: httpx.get(f"{loop.url}/readyz", timeout=30).status_code == 200)
