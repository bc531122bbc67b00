"""When Redis is wiped between two calls of an agent, the second continues its conversation and pays no second price."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.holds.store.clients import connect
from tests.loop.rig import Rig, Sold, rig
from tests.servers import short_directory, valkey_in

PRICE = 3
CALL = "call_Zx81kQp0Ls7Yb2Nd"
TOOL = {"type": "function", "function": {"name": "search", "description": "", "parameters": {"type": "object"}}}


async def chat(_: Request) -> JSONResponse:
    """Call a tool."""
    call = {"id": CALL, "type": "function", "function": {"name": "search", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return JSONResponse({**answer, "usage": usage})


async def responses(request: Request) -> JSONResponse:
    """Answer with a text, under an id of its own."""
    body = json.loads(await request.body())
    number = 2 if body.get("previous_response_id") else 1
    content = {"type": "output_text", "text": "Hello.", "annotations": []}
    item = {"type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant", "content": [content]}
    usage = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
    answer = {"id": f"resp_{number}", "object": "response", "created_at": 1, "model": "m", "status": "completed"}
    return JSONResponse({**answer, "output": [item], "usage": usage})


@pytest.fixture
def loop(ledger_url: str, tmp_path: Path) -> Iterator[Rig]:
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
    ]
    with (
        short_directory() as short,
        valkey_in(short) as url,
        rig(url, ledger_url, tmp_path, upstream=Starlette(routes=routes)) as running,
    ):
        running.tier("open", price_nanousd=PRICE)
        yield running


def answer(loop: Rig, who: Sold, path: str, body: dict[str, Any]) -> httpx.Response:
    answer = httpx.post(f"{loop.url}{path}", json={"model": "aligned-1", **body}, headers=who.headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def wipe(loop: Rig, who: Sold) -> None:
    """Wipe Redis, once the ledger has the settled calls."""
    loop.until_nothing_is_held()
    assert loop.usage(who)
    with connect(loop.settings.redis_url) as client:
        client.flushall()


QUESTION = {"role": "user", "content": "What is the weather?"}
BROUGHT_BACK = [
    QUESTION,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": CALL, "type": "function", "function": {"name": "search", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": CALL, "content": "Rain."},
]
FIRST = {
    "tool result": ("/v1/chat/completions", {"messages": [QUESTION], "tools": [TOOL]}),
    "answer's id": ("/v1/responses", {"input": "Hello"}),
    "item's id": ("/v1/responses", {"input": "Hello"}),
}
SECOND = {
    "tool result": {"messages": BROUGHT_BACK, "tools": [TOOL]},
    "answer's id": {"input": "And then?", "previous_response_id": "resp_1"},
    "item's id": {"input": [{"type": "item_reference", "id": "msg_1"}, QUESTION]},
}


@pytest.mark.parametrize("brings", FIRST)
def test_an_agent_goes_on_in_its_conversation_after_redis_is_lost(loop: Rig, brings: str) -> None:
    who = loop.customer("open")
    path, body = FIRST[brings]
    first = answer(loop, who, path, body)
    wipe(loop, who)

    second = answer(loop, who, path, SECOND[brings])
    assert second.headers["x-tokencap-conversation"] == first.headers["x-tokencap-conversation"]
    loop.until_nothing_is_held()
    assert sum(record["charge_nanousd"] for record in loop.usage(who)) == PRICE
