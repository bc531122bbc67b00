"""Hosted tools at the door: refused in every format before anything is held, or left out of what is forwarded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serving.caller.exchange import Receive, Scope, Send
from tests.loop.rig import Rig, rig
from tests.serving import body_of, outlived

MESSAGES = [{"role": "user", "content": "Hello"}]
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/v1/embeddings": {"input": "Hello"},
}
ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]},
    "/v1/completions": {"choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]},
    "/v1/responses": {"id": "resp_1", "status": "completed", "output": []},
    "/v1/messages": {"id": "msg_1", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"},
    "/v1/messages/count_tokens": {"input_tokens": 3},
    "/v1/embeddings": {"data": []},
}
FUNCTION = {"type": "function", "name": "f", "function": {"name": "f"}}


class Recorder:
    """An upstream that remembers each request, and answers whole."""

    def __init__(self) -> None:
        self.sent: dict[str, dict[str, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await outlived(scope, receive, send):
            return
        raw = await body_of(receive)
        self.sent[scope["path"]] = json.loads(raw) if raw else {}
        answer = json.dumps(ANSWERS.get(scope["path"], {})).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def call(loop: Rig, who: dict[str, str], path: str, **more: Any) -> httpx.Response:
    fields = {"model": "embed-1" if path == "/v1/embeddings" else "aligned-1", **ASKED[path], **more}
    return httpx.post(loop.url + path, json=fields, headers=who, timeout=30)


def test_in_every_format(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    model = Recorder()
    with rig(valkey_url, sqlite_url, tmp_path, upstream=model, hosted_tools="drop", embedding_model="embed-1") as loop:
        loop.tier("open")
        who = loop.customer("open").headers
        for path in ASKED:
            plain = call(loop, who, path)
            assert (plain.status_code, "x-tokencap-dropped" in plain.headers) == (200, False), plain.text
            tools = [FUNCTION, {"type": "web_search"}]
            answer = call(loop, who, path, tools=tools, web_search_options={}, tool_choice={"type": "web_search"})

            assert answer.status_code == 200, answer.text
            knows_tools = path not in ("/v1/completions", "/v1/embeddings")
            dropped = ["web_search_options", "web_search", *([] if knows_tools else ["tools"])]
            assert answer.headers["x-tokencap-dropped"] == ", ".join(dropped)
            assert b"web_search" not in json.dumps(model.sent[path]).encode()
            assert model.sent[path].get("tools") == ([FUNCTION] if knows_tools else None)


@pytest.mark.parametrize("path", [path for path in ASKED if path != "/v1/embeddings"])
def test_unless_the_operator_says_otherwise_they_are_refused(loop: Rig, path: str) -> None:
    loop.tier("open")
    who = loop.customer("open")
    for fields, param in (
        ({"tools": [FUNCTION, {"type": "code_interpreter"}]}, "tools"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"model": "aligned-1:online"}, "model"),
    ):
        answer = call(loop, who.headers, path, **fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert loop.counted()["calls"] == 0
    assert loop.usage(who) == []
