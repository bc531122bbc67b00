"""An upstream that sends fixed answers, and pauses before the first piece until the test lets it go on."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from gateway.serving.caller.exchange import Receive, Scope, Send
from tests.serving import body_of, outlived

GIVEN_UP_S = 60.0

STREAMS: dict[str, list[bytes]] = {
    "/v1/chat/completions": [
        b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","provider":"Reseller","choices":'
        b'[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}\n\n',
        b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","provider":"Reseller","choices":'
        b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        b'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"m","provider":"Reseller","choices":[],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"cost":0.01,"is_byok":false,'
        b'"cost_details":{"upstream_inference_cost":0.01},"prompt_tokens_details":{"cached_tokens":2,"cost":0.02}}}\n\n'
        b"data: [DONE]\n\n",
    ],
    "/v1/messages": [
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":'
        b'"assistant","model":"m","provider":"Reseller","content":[],"stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":1,"cache_read_input_tokens":2,"output_tokens":1,"cost":0.01,'
        b'"cost_details":{"upstream_inference_cost":0.01}}}}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":'
        b'{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
        b'{"type":"text_delta","text":"Hello"}}\n\n',
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"output_tokens":1,"cost":0.02}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ],
    "/v1/responses": [
        b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1",'
        b'"object":"response","status":"in_progress","model":"m","provider":"Reseller","output":[],'
        b'"usage":{"input_tokens":3,"output_tokens":0,"total_tokens":3,"cost":0.01}}}\n\n'
        b'event: response.output_item.added\ndata: {"type":"response.output_item.added","sequence_number":1,'
        b'"output_index":0,"item":{"id":"m_1","type":"message","role":"assistant","status":"in_progress","content":[]}}\n\n'
        b'event: response.content_part.added\ndata: {"type":"response.content_part.added","sequence_number":2,'
        b'"item_id":"m_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}\n\n'
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":3,'
        b'"item_id":"m_1","output_index":0,"content_index":0,"delta":"Hello"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","sequence_number":4,"response":{"id":"resp_1",'
        b'"object":"response","status":"completed","model":"m","provider":"Reseller","output":[{"id":"m_1","type":'
        b'"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hello",'
        b'"annotations":[]}]}],"usage":{"input_tokens":3,"output_tokens":1,"total_tokens":4,"cost":0.01,'
        b'"cost_details":{"upstream_inference_cost":0.01}}}}\n\n',
    ],
}
"""An answer of one token in each format, in two pieces."""

WHOLES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {
        "object": "list",
        "model": "m",
        "provider": "Reseller",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "cost": 0.01},
    },
    "/v1/messages/count_tokens": {"input_tokens": 3},
}

ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/responses": {"input": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
}
"""The fields of a request in each format, without the model."""

FORMATS = tuple(STREAMS)


@dataclass
class Scripted:
    """The ASGI app. Before the first piece of a stream it sends ``before``, and waits until ``may_go_on`` is set."""

    before: bytes = b""
    may_go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[dict[str, Any]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_go_on.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await outlived(scope, receive, send):
            return
        path = scope["path"]
        raw = await body_of(receive)
        if path in WHOLES:
            self._note(scope, raw)
            await _say(send, 200, b"application/json", json.dumps(WHOLES[path]).encode())
        elif path in STREAMS:
            self._note(scope, raw)
            await self._stream(send, STREAMS[path])
        else:
            await _say(send, 404, b"application/json", b"{}")

    def _note(self, scope: Scope, raw: bytes) -> None:
        self.requests.append(json.loads(raw))
        self.heads.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.paths.append(scope["path"] + ("?" + scope["query_string"].decode() if scope["query_string"] else ""))

    async def _stream(self, send: Send, pieces: list[bytes]) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self.before:
            await send({"type": "http.response.body", "body": self.before, "more_body": True})
        if not self.may_go_on.is_set():
            await asyncio.to_thread(self.may_go_on.wait, GIVEN_UP_S)
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _say(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
