"""The conversation of a call: ids that are not unique lead to no other conversation, a client's session is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.serving.dialects.answers.thread_digests import is_random
from tests.loop.rig import Rig, Sold, rig
from tests.servers import short_directory, valkey_in

TOOL = {"name": "search", "description": "", "parameters": {"type": "object"}}
DEVICE, ACCOUNT = "5c" * 32, "0b1f0f0e-6d3b-4c69-9f5e-51cf3f3a7f10"
SESSIONS = ("2d0c3b8e-76a5-4ad2-a9d0-3cbf5c9a1f01", "9f1b7c55-0f0f-4a63-8d53-6e4f0a6f4d02")


async def answer(request: Request) -> JSONResponse:
    """Call a tool under the id that the body names in ``stop`` or ``stop_sequences``."""
    body = json.loads(await request.body())
    call = body.get("stop", ["functions.search:0"])[0]
    if request.url.path.endswith("/messages"):
        call = body.get("stop_sequences", [call])[0]
        block = {"type": "tool_use", "id": call, "name": "search", "input": {}}
        usage = {"input_tokens": 9, "output_tokens": 5}
        answer = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [block],
            "usage": usage,
        }
        return JSONResponse({**answer, "stop_reason": "tool_use", "stop_sequence": None})
    tool_call = {"id": call, "type": "function", "function": {"name": "search", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [tool_call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return JSONResponse({**answer, "usage": usage})


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("which")
    routes = [Route("/v1/chat/completions", answer, methods=["POST"]), Route("/v1/messages", answer, methods=["POST"])]
    with (
        short_directory() as short,
        valkey_in(short) as redis_url,
        rig(
            redis_url, f"sqlite:///{directory / 'ledger.sqlite'}", directory, upstream=Starlette(routes=routes)
        ) as running,
    ):
        running.tier("open")
        yield running


def chat(loop: Rig, who: Sold, messages: list[Any], call: str, **headers: str) -> str:
    """Make a call whose answer calls a tool under the id ``call``; return its conversation."""
    tools = [{"type": "function", "function": TOOL}]
    body = {"model": "aligned-1", "messages": messages, "tools": tools, "stop": [call]}
    answer = httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers={**who.headers, **headers}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-tokencap-conversation"]


def messages(loop: Rig, who: Sold, turns: list[Any], call: str, **more: Any) -> str:
    tools = [{"name": "search", "input_schema": {"type": "object"}}]
    body = {"model": "aligned-1", "max_tokens": 50, "messages": turns, "tools": tools, "stop_sequences": [call], **more}
    answer = httpx.post(f"{loop.url}/v1/messages", json=body, headers=who.headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-tokencap-conversation"]


def question(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def result(call: str) -> list[dict[str, Any]]:
    """Return the tool call and its result, as a client of chat completions sends them back."""
    tool_call = {"id": call, "type": "function", "function": {"name": "search", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [tool_call]},
        {"role": "tool", "tool_call_id": call, "content": "found"},
    ]


def block(call: str) -> list[dict[str, Any]]:
    """Return the tool call and its result, as a client of Messages sends them back."""
    return [
        {"role": "assistant", "content": [{"type": "tool_use", "id": call, "name": "search", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": "found"}]},
    ]


COUNTERS = [
    "functions.search:0",
    "0",
    "call_1",
    "search",
    "call_0123456789012345678",
    "functions.searchTheWholeLibrary:12",
]
MADE_ONCE = [
    "call_Ab3dE5gH7jK9mN1pQ3sT5vW7",
    "toolu_01A09q90qw90lq917835lq9",
    "chatcmpl-tool-2d0c3b8e76a54ad2a9d03cbf5c9a1f01",
]


@pytest.mark.parametrize("call", COUNTERS)
def test_ids_that_begin_again_lead_each_to_its_own_conversation(loop: Rig, call: str) -> None:
    for say, back in ((chat, result), (messages, block)):
        who = loop.customer("open")
        questions = [question("What is a cap?"), question("What is a tier?")]
        begun = [say(loop, who, [one], call) for one in questions]
        went_on = [say(loop, who, [one, *back(call)], call) for one in questions]
        again = [say(loop, who, [one, *back(call), *back(call)], call) for one in questions]

        assert begun[0] != begun[1]
        assert went_on == begun
        assert again == begun


@pytest.mark.parametrize("call", ["functions.search:0", MADE_ONCE[0]])
def test_an_id_that_fits_two_conversations_in_all_begins_a_new_one(loop: Rig, call: str) -> None:
    for say, back in ((chat, result), (messages, block)):
        who = loop.customer("open")
        same = question("The same in both")
        first, second = (say(loop, who, [same], call) for _ in range(2))
        third = say(loop, who, [same, *back(call)], call)

        assert len({first, second, third}) == 3


def test_an_id_from_elsewhere_leads_to_no_conversation(loop: Rig) -> None:
    """An id that a client or another model made is no evidence, although a call of this gateway had the same id."""
    who = loop.customer("open")
    ours = chat(loop, who, [question("Ours")], "call_1")
    theirs = chat(loop, who, [question("Theirs"), *result("call_1")], "call_2")

    assert ours != theirs


@pytest.mark.parametrize("call", MADE_ONCE)
def test_an_id_that_is_made_once_is_evidence_by_itself(loop: Rig, call: str) -> None:
    """The id is enough even where the client has shortened the history."""
    who = loop.customer("open")
    begun = chat(loop, who, [question("A long story")], call)

    assert chat(loop, who, [question("In short"), *result(call)], "call_1") == begun
    assert is_random(call)


@pytest.mark.parametrize("name", ["X-Claude-Code-Session-Id", "session-id", "session_id", "conversation_id"])
@pytest.mark.parametrize("session", [SESSIONS[0], "a session, with spaces"])
def test_a_session_that_a_client_names_is_one_conversation(loop: Rig, name: str, session: str) -> None:
    who = loop.customer("open")
    one, two = (chat(loop, who, [question(text)], "call_1", **{name: session}) for text in ("Hello", "Something else"))
    other = chat(loop, who, [question("Hello")], "call_1", **{name: SESSIONS[1]})
    ours = chat(loop, who, [question("Hello")], "call_1", **{name: session, "X-Conversation-Id": "ours"})

    assert one == two
    assert one != other
    assert ours == "ours"


def written(session: str) -> list[str]:
    """Return both forms that Claude Code writes into ``metadata.user_id``."""
    named = {"device_id": DEVICE, "account_uuid": ACCOUNT, "session_id": session}
    return [f"user_{DEVICE}_account_{ACCOUNT}_session_{session}", json.dumps(named)]


def test_the_end_user_of_claude_code_is_its_device_and_account_and_its_session_a_conversation(loop: Rig) -> None:
    who = loop.customer("open")
    sessions = [
        messages(loop, who, [question(f"{session} {one}")], "call_1", metadata={"user_id": one})
        for session in SESSIONS
        for one in written(session)
    ]

    assert sessions == [SESSIONS[0], SESSIONS[0], SESSIONS[1], SESSIONS[1]]
    assert {record["end_user"] for record in loop.usage(who)} == {f"user_{DEVICE}_account_{ACCOUNT}"}


@pytest.mark.parametrize("other", ["user_7", "{", "{}", '{"a": 1}', "[1]", "user_a_account_b", '{"device_id": [1]}'])
def test_what_only_looks_like_such_an_end_user_stands_there_as_it_came(loop: Rig, other: str) -> None:
    who = loop.customer("open")
    messages(loop, who, [question("Hello")], "call_1", metadata={"user_id": other})

    assert [record["end_user"] for record in loop.usage(who)] == [other]
