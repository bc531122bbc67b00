"""Every door has a meter or is none: odd paths, other methods, headers of the connection, bytes that come in pieces."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold

ASKED: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
CHAT = "/v1/chat/completions"

CLOSED = [
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat/completions/",
    "/V1/chat/completions",
    "/v1/Chat/Completions",
    "/v1/chat/completions;x=1",
    "/v1/chat/completions%00",
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


@pytest.fixture
def who(loop: Rig) -> Sold:
    loop.tier("open")
    return loop.customer("open")


def raw(loop: Rig, *pieces: bytes) -> bytes:
    """Send bytes as they are, a packet a piece, and return all that comes back until the connection is closed."""
    address = httpx.URL(loop.url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        got = b""
        while piece := connection.recv(65_536):
            got += piece
        return got


def head(path: str, who: Sold, *more: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"authorization: Bearer {who.key}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("path", CLOSED)
def test_a_path_that_is_not_listed_is_no_door(loop: Rig, who: Sold, path: str) -> None:
    body = json.dumps(ASKED).encode()
    answer = raw(loop, head(path, who, f"content-length: {len(body)}", "connection: close") + body)

    assert answer.startswith(b"HTTP/1.1 404")
    assert loop.counted()["calls"] == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
def test_another_method_is_no_door_either(loop: Rig, who: Sold, method: str) -> None:
    answer = httpx.request(method, loop.url + CHAT, headers=who.headers)

    assert answer.status_code == 404
    assert loop.counted()["calls"] == 0


def test_an_encoded_path_is_the_same_door_with_the_same_meter(loop: Rig, who: Sold) -> None:
    body = json.dumps(ASKED).encode()
    line = head("/v1/ch%61t/completions", who, f"content-length: {len(body)}", "connection: close")
    answer = raw(loop, line + body)

    assert answer.startswith(b"HTTP/1.1 200")
    [record] = loop.usage(who)
    assert (record["endpoint"], record["cap_tokens"]) == (CHAT, 3)


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


def test_two_lengths_of_one_body_are_refused(loop: Rig, who: Sold) -> None:
    """What one server reads as one request and another as two is neither."""
    body = json.dumps(ASKED).encode()
    both = head(CHAT, who, f"content-length: {len(body)}", "transfer-encoding: chunked", "connection: close")
    answer = raw(loop, both + b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400")
    assert loop.counted()["calls"] == 0
