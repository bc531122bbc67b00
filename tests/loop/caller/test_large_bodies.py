"""A large body has bounded costs: it is not kept without a valid key, and it does not slow down another caller."""

from __future__ import annotations

import json
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.json_bounds import DEPTH_MOST, PARTS_MOST, VALUES_MOST
from tests.loop.rig import Rig, Sold, rig

CHAT = "/v1/chat/completions"
BODY_MAX = 4 * 2**20
GOOD = b'{"model":"aligned-1","max_tokens":3,"messages":[{"role":"user","content":"%b"}],"metadata":%b}'
TOO_MUCH = {
    "names": b"{" + b",".join(b'"%d":0' % number for number in range(PARTS_MOST + 1)) + b"}",
    "objects": b"[" + b"{}," * PARTS_MOST + b"{}]",
    "values": b"[" + b"0," * VALUES_MOST + b"0]",
    "depth": b"[" * (DEPTH_MOST + 50) + b"]" * (DEPTH_MOST + 50),
    "depth in a large one": b'["%b",' % (b"x" * 100_000) + b"[" * (DEPTH_MOST + 50) + b"]" * (DEPTH_MOST + 51),
    "depth without an end": b"[" * 1_000_000,
    "half a pair, and objects": b'["\\ud800",' + b"{}," * PARTS_MOST + b"{}]",
    "half a pair, and depth": b'["\\ud800",' + b"[" * 900 + b"]" * 901,
}
ENOUGH = {
    "an image": b'"%b"' % (b"iVBORw0KGgo" * 200_000),
    "text with commas, braces and quotes": b'"%b"' % (b'{\\"a\\": [1, 2, 3]}, \\\\' * 100_000),
    "half a pair": b'"%b\\ud800"' % (b"x" * 100_000),
    "names": b"{" + b",".join(b'"%d":0' % number for number in range(PARTS_MOST // 2)) + b"}",
    "tokens": b"[" + b",".join([b"1234"] * (VALUES_MOST - 100)) + b"]",
    "depth": b"[" * (DEPTH_MOST - 1) + b"]" * (DEPTH_MOST - 1),
}


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share, each with a customer of its own."""
    with rig(*shared, body_max=BODY_MAX, passed_fields=("metadata",)) as running:
        running.tier("open")
        yield running


@pytest.fixture
def who(loop: Rig) -> Sold:
    return loop.customer("open")


def revoke(loop: Rig, who: Sold) -> None:
    for key in loop.admin.get(f"/admin/customers/{who.id}/keys").json()["data"]:
        assert loop.admin.delete(f"/admin/keys/{key['key_id']}").status_code == 204


def post(loop: Rig, key: str, body: bytes) -> httpx.Response:
    return httpx.post(loop.url + CHAT, content=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def kept_most(loop: Rig, key: str, size: int) -> tuple[int, int]:
    """Send a head and then a body; return the status, and the peak of memory that this process allocated meanwhile."""
    address = httpx.URL(loop.url)
    body = GOOD % (b"Hello", b'"%b"' % (b"x" * size))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.host, address.port or 80), timeout=60) as connection:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        connection.sendall(head.encode())
        connection.sendall(memoryview(body))
        status = int(connection.recv(65_536).split(b" ", 2)[1])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return status, most - before


def test_a_body_whose_key_opens_nothing_is_not_kept(loop: Rig, who: Sold) -> None:
    """The key is unknown, or revoked after this gateway has cached it; the body of a valid key is kept."""
    size = 3 * 2**20
    status, most = kept_most(loop, who.key, size)
    assert (status, most > size) == (200, True)
    revoke(loop, who)

    for key in ("tc-00-" + "x" * 43, "nothing", who.key):
        status, most = kept_most(loop, key, size)
        assert status == 401
        assert most < size / 2


def test_who_waits_to_be_told_that_a_body_is_wanted_is_told_that_the_key_opens_nothing(loop: Rig, who: Sold) -> None:
    address = httpx.URL(loop.url)
    for key, status in (("tc-00-" + "x" * 43, b"HTTP/1.1 401"), (who.key, b"HTTP/1.1 100")):
        lines = (f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {key}", "expect: 100-continue")
        with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
            connection.sendall("\r\n".join((*lines, "content-length: 1000000", "", "")).encode())
            assert connection.recv(65_536).startswith(status)


@pytest.mark.parametrize("what", TOO_MUCH)
def test_a_body_with_too_much_in_it_is_refused_saying_of_what(
    loop: Rig, who: Sold, calls_before: int, what: str
) -> None:
    answer = post(loop, who.key, GOOD % (b"Hello", TOO_MUCH[what]))

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json"), answer.text
    wanted = "nested" if "depth" in what else "values" if what == "values" else "names, objects and lists"
    assert wanted in answer.json()["error"]["message"]
    assert loop.counted()["calls"] == calls_before
    assert post(loop, "tc-00-" + "x" * 43, GOOD % (b"Hello", TOO_MUCH[what])).status_code == 401


@pytest.mark.parametrize("what", ENOUGH)
def test_a_body_with_as_much_in_it_as_callers_send_is_served(loop: Rig, who: Sold, what: str) -> None:
    answer = post(loop, who.key, GOOD % (b"Hello", ENOUGH[what]))

    assert answer.status_code == 200, answer.text
    assert len(loop.usage(who)) == 1


def test_a_body_of_more_bytes_than_are_set_is_refused(loop: Rig, who: Sold) -> None:
    body = GOOD % (b"Hello", b'"%b"' % (b"x" * BODY_MAX))
    for sent in (body, iter([body[:1000], body[1000:]])):  # with its length, and in chunks
        answer = post(loop, who.key, sent)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large"), answer.text
        assert f"{BODY_MAX:,}" in answer.json()["error"]["message"]
    fits = GOOD % (b"Hello", b'"%b"' % (b"x" * (BODY_MAX - len(GOOD % (b"Hello", b'""')))))
    assert len(fits) == BODY_MAX
    assert post(loop, who.key, fits).status_code == 200


def test_many_large_bodies_at_a_time_are_all_served(loop: Rig, who: Sold) -> None:
    """They wait for each other's memory: one customer may have a quarter of the memory for bodies."""
    body = GOOD % (b"Hello", b'"%b"' % (b"x" * (BODY_MAX - 1000)))
    addresses = httpx.URL(loop.url)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {who.key}\r\ncontent-length: {len(body)}\r\n"
    connections = [socket.create_connection((addresses.host, addresses.port or 80), timeout=60) for _ in range(8)]
    for connection in connections:
        connection.sendall(head.encode() + b"\r\n" + body[:1000])
    for connection in connections:
        connection.sendall(memoryview(body)[1000:])
    statuses = [connection.recv(65_536).split(b" ", 2)[1] for connection in connections]
    for connection in connections:
        connection.close()

    assert statuses == [b"200"] * 8
    assert len(loop.usage(who)) == 8


def test_the_operators_bodies_have_bounds_too_and_strangers_none_at_all(loop: Rig) -> None:
    customers = loop.admin.get("/admin/customers?limit=1000").json()["data"]
    large = json.dumps({"name": "x" * BODY_MAX}).encode()
    cases: list[tuple[bytes, int]] = [
        (large, 413),
        *((b'{"name": "Acme", "overrides": %b}' % one, 422) for one in TOO_MUCH.values()),
    ]
    for body, status in cases:
        sent: dict[str, Any] = {"content": body, "headers": {"content-type": "application/json"}}
        assert loop.admin.post("/admin/customers", **sent).status_code == status
        unknown = httpx.post(
            f"{loop.url}/admin/customers", content=body, headers={"authorization": "Bearer x"}, timeout=60
        )
        assert unknown.status_code == 401
    assert loop.admin.get("/admin/customers?limit=1000").json()["data"] == customers


@pytest.mark.parametrize(("beyond", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_a_body_may_have_as_many_bytes_as_is_said_and_not_one_more(
    loop: Rig, who: Sold, beyond: int, status: int
) -> None:
    room = BODY_MAX + beyond - len(GOOD % (b"Hello", b'""'))
    body = GOOD % (b"Hello", b'"%b"' % (b"x" * room))

    answer = post(loop, who.key, body)

    assert len(body) == BODY_MAX + beyond
    assert answer.status_code == status
