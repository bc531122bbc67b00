"""No call gets past the meter by an odd path, another method, connection headers or bytes that arrive in pieces."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig

ASKED: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
CHAT = "/v1/chat/completions"

CLOSED = [
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat/completions/",
    "/V1/chat/completions",
    "/v1/Chat/Completions",
    "/v1/chat/completions;x=1",
    "/v1/../v1/chat/completions",
    "/v1/chat/completions%2F",
    "/v1/engines/aligned-1/completions",
    "/v1/messages/batches",
    "/v1/responses/resp_1",
    "/v1/responses/input_tokens",
    "/v1/conversations",
    "/v1/batches",
    "/v1/files",
    "/v1/audio/speech",
    "/v1/images/generations",
    "/v1/moderations",
    "/v1/realtime",
    "/tokenize",
    "/v1/tokenize",
    "/chat/completions",
    "/api/chat",
    "/completion",
]


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share, each with a customer of its own."""
    with rig(*shared) as running:
        running.tier("open")
        yield running


@pytest.fixture
def who(loop: Rig) -> Sold:
    return loop.customer("open")


def raw(loop: Rig, *pieces: bytes) -> bytes:
    """Send raw bytes, one packet for each piece, and return everything received until the connection is closed."""
    address = httpx.URL(loop.url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
        return received


def head(path: str, who: Sold, *more: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {who.key}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("path", CLOSED)
def test_a_path_that_is_not_listed_is_no_door(loop: Rig, who: Sold, calls_before: int, path: str) -> None:
    body = json.dumps(ASKED).encode()
    answer = raw(loop, head(path, who, f"content-length: {len(body)}", "connection: close") + body)

    assert answer.startswith(b"HTTP/1.1 404")
    assert loop.counted()["calls"] == calls_before


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
def test_another_method_is_no_door_either(loop: Rig, who: Sold, calls_before: int, method: str) -> None:
    answer = httpx.request(method, loop.url + CHAT, headers=who.headers)

    assert answer.status_code == 404
    assert loop.counted()["calls"] == calls_before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/ch%61t/completions", 400),
        ("/%76%31/chat/completions", 400),
        ("/v1/chat/completions%00", 400),
        ("/v1/%2e/chat/completions", 400),
        ("/v1/chat/completions#x", 400),
        ("/v1\\chat\\completions", 400),
        ("http://y/v1/chat/completions", 400),
        ("/v1/chat%2fcompletions", 404),
        ("/v1%2Fchat%2Fcompletions", 404),
        ("/v1/chat%5Ccompletions", 404),
    ],
)
def test_a_path_has_one_spelling(loop: Rig, who: Sold, calls_before: int, path: str, status: int) -> None:
    body = json.dumps(ASKED).encode()
    answer = raw(loop, head(path, who, f"content-length: {len(body)}", "connection: close") + body)

    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert loop.counted()["calls"] == calls_before


@pytest.mark.parametrize(
    "path", ["/admin%2Fcustomers", "/%61dmin/customers", "/admin/customers/", "//admin/customers", "/metrics%2F"]
)
def test_the_admin_side_has_one_spelling_too(loop: Rig, path: str) -> None:
    """A path in another spelling is neither served nor redirected."""
    token = loop.admin.headers["authorization"]
    line = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\nconnection: close\r\n\r\n"

    assert raw(loop, line.encode())[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404")


def test_two_requests_sent_at_once_are_two_records(loop: Rig, who: Sold) -> None:
    body = json.dumps(ASKED).encode()
    first = head(CHAT, who, f"content-length: {len(body)}") + body
    last = head(CHAT, who, f"content-length: {len(body)}", "connection: close") + body
    answers = raw(loop, first + last)

    assert answers.count(b"HTTP/1.1 200") == 2
    assert len(loop.usage(who)) == 2


def test_a_body_in_chunks_and_in_single_bytes_is_one_body(loop: Rig, who: Sold) -> None:
    body = json.dumps(ASKED).encode()
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:1], body[1:40], body[40:])]
    in_chunks = raw(loop, head(CHAT, who, "transfer-encoding: chunked", "connection: close"), *chunks, b"0\r\n\r\n")
    whole = head(CHAT, who, f"content-length: {len(body)}", "connection: close") + body
    in_bytes = raw(loop, *(whole[place : place + 1] for place in range(len(whole))))

    assert in_chunks.startswith(b"HTTP/1.1 200")
    assert in_bytes.startswith(b"HTTP/1.1 200")
    assert [record["cap_tokens"] for record in loop.usage(who)] == [3, 3]


def test_two_lengths_of_one_body_are_refused(loop: Rig, who: Sold, calls_before: int) -> None:
    """Bytes that one server reads as one request and another server as two are refused."""
    body = json.dumps(ASKED).encode()
    both = head(CHAT, who, f"content-length: {len(body)}", "transfer-encoding: chunked", "connection: close")
    answer = raw(loop, both + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400")
    assert loop.counted()["calls"] == calls_before
