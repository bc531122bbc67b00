"""Messages of the simulated model, each of one block, a text or the use of a tool; and their token count."""

from __future__ import annotations

import json
from typing import Any

from gateway.errors import BadRequest, TokencapError
from gateway.simulator.reply import Choice, Reply, ToolCall, to_json
from gateway.simulator.request import (
    CheckedRequest,
    flag,
    form_in,
    integer_in,
    is_list_of_objects,
    payload_for,
    prompt_tokens,
    results_in,
    tool_for,
    within_context,
)

THOUGHT_LEAST = 1024
"""The smallest thinking budget."""

ROLES = ("user", "assistant", "system")
"""The roles; Claude Code puts system prompts among the messages."""

REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return the checked request of a message."""
    payload = payload_for(body, model)
    limit = integer_in(payload, "max_tokens", maximum=None)
    if limit is None:
        raise BadRequest("max_tokens is required.", param="max_tokens")
    return _checked_request(payload, model, context_tokens, limit)


def read_count(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return the checked request of a token count."""
    payload = payload_for(body, model)
    if {"max_tokens", "stream"} & payload.keys():
        raise BadRequest("Extra inputs are not permitted.")
    return _checked_request(payload, model, context_tokens, None)


def _checked_request(payload: dict[str, Any], model: str, context_tokens: int, limit: int | None) -> CheckedRequest:
    messages = _messages(payload.get("messages"))
    tools = payload.get("tools") or []
    if not is_list_of_objects(tools) or not all(isinstance(tool.get("name"), str) for tool in tools):
        raise BadRequest("tools is a list of tools, each with a name.", param="tools")
    _check_thinking(payload.get("thinking"), limit)
    system = [{"role": "system", "content": payload["system"]}] if payload.get("system") else []
    if system and not isinstance(payload["system"], str) and not is_list_of_objects(payload["system"]):
        raise BadRequest("system: a string or a list of blocks.", param="system")
    return within_context(
        CheckedRequest(
            model=model,
            prompt_tokens=prompt_tokens([*system, *(_plain(message) for message in messages)], tools),
            limit=limit,
            choices=0 if limit is None else 1,
            stream=flag(payload, "stream"),
            include_usage=True,
            continuous_usage=False,
            seed=None,
            tool=tool_for(
                _choice(payload.get("tool_choice")),
                {tool["name"]: tool.get("input_schema") for tool in tools},
                messages,
            ),
            results=results_in([role for message in messages for role in _roles(message) if role != "system"]),
            form=form_in(_form(payload)),
        ),
        context_tokens,
    )


def _form(payload: dict[str, Any]) -> Any:
    """Return the form of an answer, from the newer or the older field."""
    config = payload.get("output_config")
    return (config.get("format") if isinstance(config, dict) else None) or payload.get("output_format")


def _check_thinking(thinking: Any, limit: int | None) -> None:
    """Refuse a budget as Anthropic does: a budget has a minimum, and the limit must be above the budget."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) and thinking.get("type") == "enabled" else None
    if isinstance(budget, int) and limit is not None and limit <= budget:
        raise BadRequest("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if isinstance(budget, int) and budget < THOUGHT_LEAST:
        raise BadRequest(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {THOUGHT_LEAST}")


def _messages(value: Any) -> list[dict[str, Any]]:
    if not is_list_of_objects(value) or not value:
        raise BadRequest("messages: at least one message is required.", param="messages")
    for place, message in enumerate(value):
        content = message.get("content")
        if message.get("role") not in ROLES:
            raise BadRequest(f"messages.{place}.role: user, assistant or system.", param="messages")
        if not isinstance(content, str) and not is_list_of_objects(content):
            raise BadRequest(f"messages.{place}.content: a string or a list of blocks.", param="messages")
    messages: list[dict[str, Any]] = value
    return messages


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with the text of its blocks."""
    content = message["content"]
    if isinstance(content, str):
        return message
    parts = [block.get("text") or block.get("input") or block.get("content") or "" for block in content]
    texts = [part if isinstance(part, str) else json.dumps(part) for part in parts]
    return {"role": message["role"], "content": "".join(texts)}


def _roles(message: dict[str, Any]) -> list[str]:
    """Return the roles in a message, with ``tool`` for each result in it."""
    content = message["content"]
    results = [block for block in content if isinstance(block, dict) and block.get("type") == "tool_result"]
    return ["tool"] * len(results) or [message["role"]]


def _choice(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return (
        value.get("name")
        if value.get("type") == "tool"
        else {"any": "required"}.get(str(value.get("type")), value.get("type"))
    )


def whole(reply: Reply) -> bytes:
    """Return the answer as one ``message``."""
    [choice] = reply.choices
    stop_fields = {"stop_reason": REASONS[choice.finish], "stop_sequence": None}
    usage = _usage(reply, reply.tokens_after(reply.steps))
    return to_json({**_message(reply, usage), "content": [_block(choice, "".join(choice.pieces()))], **stop_fields})


def error(refusal: TokencapError) -> bytes:
    """Return a refusal in the format's shape."""
    kind = "not_found_error" if refusal.status == 404 else "invalid_request_error"
    return to_json({"type": "error", "error": {"type": kind, "message": refusal.message}})


def _usage(reply: Reply, output_tokens: int) -> dict[str, Any]:
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": reply.prompt_tokens, **cache, "output_tokens": output_tokens}


def _message(reply: Reply, usage: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
    return {"id": reply.id, "type": "message", "role": "assistant", "model": reply.model, **empty, "usage": usage}


def _block(choice: Choice, text: str) -> dict[str, Any]:
    if isinstance(choice, ToolCall):
        try:
            arguments = json.loads(text or "{}")
        except ValueError:
            arguments = {}
        return {"type": "tool_use", "id": choice.call_id, "name": choice.name, "input": arguments}
    return {"type": "text", "text": text}


class Events:
    """Writes one reply as named events, a token a delta."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._choice: Choice = reply.choices[0]
        self._pieces = self._choice.pieces()
        self._step = 0

    def up_to(self, step: int) -> bytes:
        events: list[bytes] = []
        while self._step < step:
            self._step += 1
            if self._step == 1:
                events.append(_event("message_start", message=_message(self._reply, self._usage_at_first())))
                events.append(_event("content_block_start", index=0, content_block=self._begun()))
                if self._reply.engine == "any":
                    events.append(_event("ping"))
            if piece := next(self._pieces):
                events.append(_event("content_block_delta", index=0, delta=self._delta(piece)))
        return b"".join(events)

    def ending(self) -> bytes:
        stop_fields = {"stop_reason": REASONS[self._choice.finish], "stop_sequence": None}
        usage = {"output_tokens": self._reply.tokens_after(self._reply.steps)}
        if self._reply.engine in ("vllm", "sglang", "ollama"):
            usage["input_tokens"] = self._reply.prompt_tokens
        if self._reply.engine == "vllm":
            del stop_fields["stop_sequence"]
        stop = _event("content_block_stop", index=0)
        return stop + _event("message_delta", delta=stop_fields, usage=usage) + _event("message_stop")

    def _usage_at_first(self) -> dict[str, Any]:
        if self._reply.engine == "any":
            return _usage(self._reply, 1)
        return {"input_tokens": 0 if self._reply.engine == "ollama" else self._reply.prompt_tokens, "output_tokens": 0}

    def _begun(self) -> dict[str, Any]:
        block = _block(self._choice, "")
        if self._reply.engine == "llamacpp":
            block.pop("input", None)
        return block

    def _delta(self, piece: str) -> dict[str, Any]:
        if isinstance(self._choice, ToolCall):
            return {"type": "input_json_delta", "partial_json": piece}
        return {"type": "text_delta", "text": piece}


def _event(kind: str, **more: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), to_json({"type": kind, **more}))
