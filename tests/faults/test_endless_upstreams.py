"""An upstream that nests too deeply or never ends a line has failed: the refusal says so, and nothing stays held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.serving.upstream.http11 import FRAMING_MOST
from tests.loop.rig import Rig, Sold, rig
from tests.serving import body_of, outlived

TALK = [{"role": "user", "content": "Hello"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TALK},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": TALK, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": TALK},
    "/v1/embeddings": {"input": "Hello", "model": "aligned-1-embedding"},
}
DEEP = b"[" * 100_000
NESTED = b'{"object":"x","choices":[],"content":[],"output":[],"data":%b%b}' % (b"[" * 300, b"]" * 300)
WIDE = b'{"a":[' + b"{}," * 2_100_000 + b"{}]}"
WHOLE = {"deep": DEEP, "nested": NESTED, "wide": WIDE, "deep objects": b'{"a":' * 100_000}


@dataclass
class Model:
    """A model that answers every request with the same body."""

    body: bytes = b"{}"
    status: int = 200
    kind: bytes = b"application/json"
    paths: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await outlived(scope, receive, send):
            return
        await body_of(receive)
        self.paths.append(scope["path"])
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-type", self.kind)]})
        await send({"type": "http.response.body", "body": self.body})


@pytest.fixture
def model() -> Model:
    return Model(DEEP)  # also to the question of its kind at the start


@pytest.fixture
def loop(valkey_url: str, sqlite_url: str, tmp_path: Path, model: Model) -> Iterator[Rig]:
    spoken = ("chat", "completions", "responses", "messages", "embeddings")
    settings: dict[str, Any] = {"upstream_dialects": spoken, "embedding_model": "aligned-1-embedding"}
    with rig(valkey_url, sqlite_url, tmp_path, upstream=model, **settings) as running:
        running.tier("open")
        yield running


def post(loop: Rig, who: Sold, path: str, **more: Any) -> httpx.Response:
    body = {"model": "aligned-1", **ROUTES[path], **more}
    return httpx.post(loop.url + path, json=body, headers=who.headers, timeout=60)


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_nested_without_an_end_is_the_upstreams_fault(loop: Rig, model: Model, path: str) -> None:
    """This holds for a whole answer, an error and a stream; the call ends, and nothing of it stays held."""
    who = loop.customer("open")
    for body in WHOLE.values():
        model.body, model.status, model.kind = body, 200, b"application/json"
        whole = post(loop, who, path)
        assert (whole.status_code, whole.json()["error"]["code"]) == (502, "upstream_unavailable"), whole.text
    for status in (400, 404, 422):
        model.body, model.status = DEEP[:50_000], status
        refused = post(loop, who, path)
        assert refused.status_code in (status, 404), refused.text
        assert "upstream" in refused.text or "endpoint" in refused.text
    if path not in ("/v1/embeddings", "/v1/messages/count_tokens"):
        for body in (DEEP, NESTED):
            model.status, model.kind, model.body = 200, b"text/event-stream", b"data: " + body + b"\n\n"
            whole = post(loop, who, path)
            streamed = post(loop, who, path, stream=True)
            assert (whole.status_code, whole.json()["error"]["code"]) == (502, "upstream_unavailable"), whole.text
            assert "upstream_unavailable" in streamed.text
            assert "[DONE]" not in streamed.text
    loop.until_nothing_is_held()
    assert all(record["finish"] == "upstream_error" for record in loop.usage(who))


async def pour_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begins: bytes, goes_on: bytes) -> None:
    """Answer calls with a reply that never ends, and any other request with 404."""
    head = await reader.readuntil(b"\r\n\r\n")
    try:
        if head.startswith(b"POST"):
            writer.write(begins)
            for _ in range(200):
                writer.write(goes_on)
                await writer.drain()
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    except ConnectionError:
        pass
    finally:
        writer.close()


ENDLESS = {
    "a header": (b"HTTP/1.1 200 OK\r\nx: ", b"x" * FRAMING_MOST),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * (FRAMING_MOST // 6)),
    "answers before the answer": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * (FRAMING_MOST // 25)),
    "the frame of a chunk": (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n1;",
        b"x" * FRAMING_MOST,
    ),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_what_never_ends_and_is_no_body_is_not_read_for_ever(
    valkey_url: str, sqlite_url: str, tmp_path: Path, what: str
) -> None:
    model = await asyncio.start_server(lambda reader, writer: pour_out(reader, writer, *ENDLESS[what]), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{model.sockets[0].getsockname()[1]}"
    with rig(valkey_url, sqlite_url, tmp_path, upstream=address) as loop:
        loop.tier("open")
        who = await asyncio.to_thread(loop.customer, "open")
        answer = await asyncio.to_thread(post, loop, who, "/v1/chat/completions")
        await asyncio.to_thread(loop.until_nothing_is_held)
    model.close()

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unavailable"), answer.text
