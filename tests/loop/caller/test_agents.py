"""Requests of our own in the form of Claude Code's and Codex's get a whole answer from every engine that speaks their
format, and the answer names the cap where a cap ends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serving.upstream.profiles import MESSAGES, PROFILES, RESPONSES
from tests.loop.rig import FAST, Rig, Sold, rig
from tests.servers import emptied
from tests.wire.sdk_models import read_stream, read_whole

SESSION = "6f0c1d3e-8a52-4b7e-9c11-0d2f4b6a8e90"
DEVICE = "a" * 64
CACHED = {"type": "ephemeral"}
SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"command": {}}}

CLAUDE_HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "anthropic-dangerous-direct-browser-access": "true",
    "user-agent": "claude-cli/2.1.0 (external, cli)",
    "x-app": "cli",
    "x-stainless-retry-count": "0",
}

CLAUDE: dict[str, Any] = {
    "model": "aligned-1",
    "max_tokens": 32000,
    "thinking": {"type": "enabled", "budget_tokens": 31999},
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.0; cch=00000;"},
        {"type": "text", "text": "You help with code.", "cache_control": {**CACHED, "ttl": "1h"}},
    ],
    "tools": [
        {"name": "Bash", "description": "Runs a command.", "input_schema": SCHEMA, "eager_input_streaming": True},
        {"name": "mcp__notes__read", "description": "Reads.", "input_schema": SCHEMA, "defer_loading": True},
        {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
    ],
    "metadata": {"user_id": json.dumps({"device_id": DEVICE, "account_uuid": "", "session_id": SESSION})},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "temperature": 1,
}

CLAUDE_LATER: dict[str, Any] = {
    **{name: value for name, value in CLAUDE.items() if name != "temperature"},
    "max_tokens": 128000,
    "thinking": {"type": "adaptive", "display": "updates"},
    "tools": [
        CLAUDE["tools"][0],
        {"name": "DeferredToolPlaceholder", "description": "None.", "input_schema": SCHEMA, "defer_loading": True},
    ],
    "output_config": {"effort": "medium"},
}
"""The body of version 2.1.332, whose first turn ends with a message of the role ``system``."""

ASKS = {
    "role": "user",
    "content": [
        {"type": "text", "text": "<system-reminder>The folder is empty.</system-reminder>"},
        {"type": "text", "text": "List the files.", "cache_control": CACHED},
    ],
}

SURROUNDINGS = {"role": "system", "content": [{"type": "text", "text": "# Environment", "cache_control": CACHED}]}

CODEX_HEADERS = {
    "originator": "codex_cli_rs",
    "session_id": SESSION,
    "conversation_id": SESSION,
    "user-agent": "codex_cli_rs/0.98.0 (Linux; x86_64) xterm",
    "accept": "text/event-stream",
}

RUN = {
    "type": "function",
    "name": "exec_command",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]},
}

CODEX: dict[str, Any] = {
    "model": "aligned-1",
    "instructions": "You are a coding agent.",
    "tools": [
        RUN,
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
        },
        {"type": "namespace", "name": "mcp__notes", "description": "Notes.", "tools": [{**RUN, "name": "read"}]},
        {"type": "tool_search", "execution": "client", "description": "Finds.", "parameters": {"type": "object"}},
        {"type": "local_shell"},
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": SESSION,
    "text": {"verbosity": "medium"},
    "client_metadata": {"x-codex-installation-id": SESSION},
}

CODEX_LATER: dict[str, Any] = {
    **{name: value for name, value in CODEX.items() if name not in ("instructions", "tools")},
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low", "context": "all_turns"},
}
"""The body of version 0.171, whose input begins with its tools, and whose items have ids of their own."""

BROUGHT = {
    "type": "additional_tools",
    "id": "at_1",
    "role": "developer",
    "tools": [{"type": "namespace", "name": "functions", "description": "Tools.", "tools": [RUN]}],
}

BEGINS: list[dict[str, Any]] = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions/>"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List the files."}]},
]


SPEAK = {
    endpoint: [name for name, profile in PROFILES.items() if endpoint in profile.speaks]
    for endpoint in (MESSAGES, RESPONSES)
}
"""The engines that speak a format."""

before_all_with_messages = pytest.mark.parametrize("before", SPEAK[MESSAGES], indirect=True)
before_all_with_responses = pytest.mark.parametrize("before", SPEAK[RESPONSES], indirect=True)


@pytest.fixture(scope="module")
def before(
    request: pytest.FixtureRequest, valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A gateway before one kind of engine; the gateway drops hosted tools, as Codex's defaults need."""
    folder: Path = tmp_path_factory.mktemp("agents")
    settings: dict[str, Any] = {"upstream_profile": request.param, "hosted_tools": "drop"}
    law = replace(FAST, profile=request.param)
    with rig(emptied(valkey_server), f"sqlite:///{folder}/ledger.sqlite", folder, law=law, **settings) as running:
        running.tier("open", period_tokens_max=10_000_000)
        for most in (3, 900, 5000):
            running.tier(f"of_{most}", conversation_tokens_max=most, price_nanousd=1000)
        yield running


def answer_of(before: Rig, who: Sold, endpoint: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
    """Return the answer as the vendor's own client parses it."""
    path = endpoint + ("?beta=true" if endpoint == MESSAGES else "")
    answer = httpx.post(before.url + path, json=body, headers={**who.headers, **headers}, timeout=60)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        return read_whole(endpoint, answer.json())
    whole, error = read_stream(endpoint, answer.content)
    assert error is None
    return whole


@before_all_with_messages
@pytest.mark.parametrize("tier", ["open", "of_5000"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("sent", "begins"), [(CLAUDE, [ASKS]), (CLAUDE_LATER, [ASKS, SURROUNDINGS])])
def test_claude_code_has_a_tool_used(before: Rig, tier: str, stream: bool, sent: Any, begins: list[Any]) -> None:
    """A tool call is answered also under a cap below the thinking budget, and with system messages among the turns."""
    who, body = before.customer(tier), {**sent, "stream": stream, "messages": begins}

    called = answer_of(before, who, MESSAGES, body, CLAUDE_HEADERS)
    [call] = [block for block in called["content"] if block["type"] == "tool_use"]
    thought = {"type": "thinking", "thinking": "", "signature": "EqQB"}
    found = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "a.py"}]}
    back = {"role": "user", "content": [{**found, "is_error": False, "cache_control": CACHED}]}
    reminded = {"role": "system", "content": [{"type": "text", "text": "Two files changed."}]}
    answer_read = answer_of(
        before,
        who,
        MESSAGES,
        {**body, "messages": [*begins, {"role": "assistant", "content": [thought, call]}, back, reminded]},
        CLAUDE_HEADERS,
    )

    assert (called["stop_reason"], call["name"], call["input"]) == ("tool_use", "Bash", {"simulated": True})
    assert (answer_read["stop_reason"], answer_read["content"][0]["text"][:4]) == ("end_turn", "This")
    records = before.usage(who)
    assert [record["finish"] for record in records] == ["tool_calls", "complete"]
    assert len({record["conversation"] for record in records}) == 1
    assert [record["usage_source"] for record in records] == ["upstream"] * 2


@before_all_with_responses
@pytest.mark.parametrize("tier", ["open", "of_900"])
@pytest.mark.parametrize(
    ("sent", "begins"), [(CODEX, BEGINS), (CODEX_LATER, [BROUGHT, *({**one, "id": "msg_1"} for one in BEGINS)])]
)
def test_codex_has_a_tool_used(before: Rig, tier: str, sent: Any, begins: list[Any]) -> None:
    """Codex's defaults include a tool that the upstream would run, and Codex returns its reasoning encrypted."""
    who, body = before.customer(tier), {**sent, "input": begins}

    called = answer_of(before, who, RESPONSES, body, CODEX_HEADERS)
    [call] = [item for item in called["output"] if item["type"] == "function_call"]
    call_made = {name: call[name] for name in ("type", "name", "arguments", "call_id")}
    thought = {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "gAAA"}
    found = {"type": "function_call_output", "call_id": call["call_id"], "output": "a.py"}
    patched = {"type": "custom_tool_call", "call_id": "call_p", "name": "apply_patch", "input": "*** Begin Patch"}
    done = {"type": "custom_tool_call_output", "call_id": "call_p", "output": "Done."}
    answer_read = answer_of(
        before, who, RESPONSES, {**body, "input": [*begins, thought, call_made, found, patched, done]}, CODEX_HEADERS
    )

    assert (call_made["name"], call_made["arguments"]) == ("exec_command", '{"cmd":"simulated"}')
    assert answer_read["output"][0]["content"][0]["text"].startswith("This answer")
    assert [record["finish"] for record in before.usage(who)] == ["tool_calls", "complete"]


@pytest.mark.parametrize(
    ("before", "endpoint"),
    [(name, endpoint) for endpoint, names in SPEAK.items() for name in names],
    indirect=["before"],
)
def test_a_cap_that_ends_an_answer_is_told_as_each_format_does(before: Rig, endpoint: str) -> None:
    """Whatever an engine calls the reason, the granted tokens are delivered, and the record says ``cap``."""
    for stream in (True, False):
        who = before.customer("of_3")
        turns: dict[str, Any] = {"messages": [ASKS], "max_tokens": 100} if endpoint == MESSAGES else {"input": BEGINS}

        answer = answer_of(before, who, endpoint, {"model": "aligned-1", "stream": stream, **turns}, {})

        items = answer["content"] if endpoint == MESSAGES else answer["output"][0]["content"]
        why = answer["stop_reason"] if endpoint == MESSAGES else answer["incomplete_details"]["reason"]
        assert items[0]["text"] == "This answer is"
        assert why == ("max_tokens" if endpoint == MESSAGES else "max_output_tokens")
        [record] = before.usage(who)
        assert (record["finish"], record["billed_output_tokens"], record["usage_source"]) == ("cap", 3, "upstream")


@before_all_with_responses
def test_an_item_is_brought_back_by_its_id(before: Rig) -> None:
    """Vercel's client refers to items by default; the model itself answers 400 for an id that it does not know."""
    who = before.customer("open")
    body: dict[str, Any] = {"model": "aligned-1", "input": BEGINS}
    first = answer_of(before, who, RESPONSES, body, {})
    referred = {"type": "item_reference", "id": first["output"][0]["id"]}

    answer_read = answer_of(before, who, RESPONSES, {**body, "input": [*BEGINS, referred, BEGINS[1]]}, {})

    assert answer_read["status"] == "completed"
