"""Responses of the simulated model, each of one item: a message or a call of a function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.errors import BadRequest
from gateway.simulator.reply import Choice, Reply, ToolCall, to_json
from gateway.simulator.request import (
    CheckedRequest,
    flag,
    form_in,
    is_list_of_objects,
    limit_in,
    payload_for,
    prompt_tokens,
    results_in,
    seed_in,
    tool_for,
    within_context,
)

Event = dict[str, Any]

NUMBERS = frozenset({"output_index", "content_index", "logprobs"})
"""Fields of events that llama.cpp leaves out, besides the sequence number."""


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return the checked request of a response."""
    payload = payload_for(body, model)
    messages = [*_instructions(payload.get("instructions")), *_messages(payload.get("input"))]
    tools = [*_tools(payload.get("tools")), *_tools_in_items(payload.get("input"))]
    return within_context(
        CheckedRequest(
            model=model,
            prompt_tokens=prompt_tokens(messages, tools),
            limit=limit_in(payload, "max_output_tokens"),
            choices=1,
            stream=flag(payload, "stream"),
            include_usage=True,
            continuous_usage=False,
            seed=seed_in(payload),
            tool=tool_for(_choice(payload.get("tool_choice")), _schemas(tools), messages),
            results=results_in([str(message["role"]) for message in messages]),
            previous=_previous(payload.get("previous_response_id")),
            references=_references(payload.get("input")),
            form=form_in(_object(payload.get("text")).get("format")),
        ),
        context_tokens,
    )


def _previous(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise BadRequest("previous_response_id is a string.", param="previous_response_id", code="invalid_type")
    return value


def _instructions(value: Any) -> list[dict[str, Any]]:
    if value is not None and not isinstance(value, str):
        raise BadRequest("instructions is a string.", param="instructions", code="invalid_type")
    return [{"role": "system", "content": value}] if value else []


def _messages(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not is_list_of_objects(value) or not value:
        raise BadRequest("input is a string or a list of items.", param="input", code="invalid_type")
    return [_message(item) for item in value]


def _message(item: dict[str, Any]) -> dict[str, Any]:
    kind = str(item.get("type", "message"))
    if kind == "message":
        return {"role": item.get("role"), "content": item.get("content")}
    if kind.endswith("_output"):
        output = item.get("output")
        return {"role": "tool", "content": output if isinstance(output, str) or is_list_of_objects(output) else None}
    if kind == "additional_tools":
        return {"role": item.get("role"), "content": None}
    if kind in ("reasoning", "item_reference"):
        return {"role": "assistant", "content": None}
    if kind.endswith("_call"):
        arguments = item.get("arguments") or item.get("input") or ""
        return {"role": "assistant", "content": f"{item.get('name', kind)}{arguments}"}
    raise BadRequest(
        "An item is a message, a call of a tool, what it returned, reasoning or a reference.", param="input"
    )


def _references(value: Any) -> tuple[str, ...]:
    """Return the ids of earlier items that the input refers to."""
    items = value if isinstance(value, list) else []
    return tuple(str(item.get("id")) for item in items if item.get("type") == "item_reference")


def _tools(value: Any) -> list[dict[str, Any]]:
    is_list = is_list_of_objects(value) and all(isinstance(tool.get("name", tool.get("type")), str) for tool in value)
    if value is not None and not is_list:
        raise BadRequest("tools is a list of tools, each with a name or a type.", param="tools", code="invalid_type")
    return value or []


def _tools_in_items(value: Any) -> list[dict[str, Any]]:
    """Return the tools in the items, such as Codex' first item."""
    items = value if isinstance(value, list) else []
    return [tool for item in items if item.get("type") == "additional_tools" for tool in _tools(item.get("tools"))]


def _schemas(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schemas of the functions among tools by name, including functions in a namespace."""
    nested = [function for tool in tools if is_list_of_objects(tool.get("tools")) for function in tool["tools"]]
    functions = [tool for tool in (*tools, *nested) if tool.get("type") == "function"]
    return {str(tool.get("name")): tool.get("parameters") for tool in functions}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _choice(value: Any) -> Any:
    return value.get("name") if isinstance(value, dict) else value


def whole(reply: Reply) -> bytes:
    """Return the answer as one ``response``."""
    return to_json(_response(reply, done=True))


def _response(reply: Reply, *, done: bool) -> dict[str, Any]:
    [choice] = reply.choices
    is_cut = choice.finish == "length"
    output_tokens = reply.tokens_after(reply.steps)
    usage = {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.prompt_tokens + output_tokens,
    }
    if reply.engine == "llamacpp":
        response = {"id": reply.id, "object": "response", "status": "completed" if done else "in_progress"}
        if not done:
            return response
        output = [_item(reply, "".join(choice.pieces()), done=True)]
        used = {name: count for name, count in usage.items() if isinstance(count, int)}
        return {**response, "created_at": reply.created, "model": reply.model, "output": output, "usage": used}
    return {
        "id": reply.id,
        "object": "response",
        "created_at": reply.created,
        "model": reply.model,
        "status": ("incomplete" if is_cut else "completed") if done else "in_progress",
        "incomplete_details": {"reason": "max_output_tokens"} if done and is_cut else None,
        "error": None,
        "output": [_item(reply, "".join(choice.pieces()), done=True)] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if done else None,
    }


def _item(reply: Reply, text: str, *, done: bool) -> dict[str, Any]:
    [choice] = reply.choices
    is_cut = choice.finish == "length" and reply.engine != "llamacpp"
    status = ("incomplete" if is_cut else "completed") if done else "in_progress"
    if isinstance(choice, ToolCall) and reply.engine == "llamacpp":
        call = {"call_id": f"fc_{choice.call_id}", "name": choice.name, "arguments": text}
        return {"type": "function_call", "status": status, **call}
    if isinstance(choice, ToolCall):
        call = {"call_id": choice.call_id, "name": choice.name, "arguments": text}
        return {"id": f"fc_{reply.id}", "type": "function_call", "status": status, **call}
    content = [_part(text)] if done else []
    return {"id": f"msg_{reply.id}", "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class Events:
    """Writes one reply as numbered events, a token a delta."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._choice: Choice = reply.choices[0]
        self._pieces = self._choice.pieces()
        self._step = 0
        self._number = -1
        self._text = ""

    def up_to(self, step: int) -> bytes:
        events: list[bytes] = []
        while self._step < step:
            self._step += 1
            if self._step == 1:
                events += [self._event(event) for event in self._opening()]
            piece = next(self._pieces)
            self._text += piece
            if piece:
                events.append(self._event(self._delta(piece)))
        return b"".join(events)

    def ending(self) -> bytes:
        events = [self._event(event) for event in self._closing()]
        response = _response(self._reply, done=True)
        status = "completed" if self._reply.engine in ("vllm", "sglang", "llamacpp") else response["status"]
        return b"".join(events) + self._event({"type": f"response.{status}", "response": response})

    @property
    def _at(self) -> Event:
        item = _item(self._reply, "", done=False)
        return {"item_id": item.get("id") or item["call_id"], "output_index": 0}

    def _opening(self) -> Iterator[Event]:
        for kind in ("created", "in_progress"):
            yield {"type": f"response.{kind}", "response": _response(self._reply, done=False)}
        yield {"type": "response.output_item.added", "output_index": 0, "item": _item(self._reply, "", done=False)}
        if not isinstance(self._choice, ToolCall):
            yield {"type": "response.content_part.added", **self._at, "content_index": 0, "part": _part("")}

    def _delta(self, piece: str) -> Event:
        if isinstance(self._choice, ToolCall):
            return {"type": "response.function_call_arguments.delta", **self._at, "delta": piece}
        return {"type": "response.output_text.delta", **self._at, "content_index": 0, "delta": piece, "logprobs": []}

    def _closing(self) -> Iterator[Event]:
        if isinstance(self._choice, ToolCall) and self._reply.engine == "llamacpp":
            pass  # the item has the arguments
        elif isinstance(self._choice, ToolCall):
            call = {"name": self._choice.name, "arguments": self._text}
            yield {"type": "response.function_call_arguments.done", **self._at, **call}
        else:
            position = {**self._at, "content_index": 0}
            yield {"type": "response.output_text.done", **position, "text": self._text, "logprobs": []}
            yield {"type": "response.content_part.done", **position, "part": _part(self._text)}
        item = _item(self._reply, self._text, done=True)
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}

    def _event(self, event: Event) -> bytes:
        self._number += 1
        if self._reply.engine == "llamacpp":
            numbered = to_json({name: value for name, value in event.items() if name not in NUMBERS})
        else:
            numbered = to_json({**event, "sequence_number": self._number})
        return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), numbered)
