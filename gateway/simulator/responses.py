"""Responses of the simulated model: one item, a message or a call of a function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.errors import BadRequest
from gateway.simulator.reply import Choice, Reply, ToolCall, to_json
from gateway.simulator.request import (
    CheckedRequest,
    flag,
    form_in,
    given_to,
    is_list_of_objects,
    limit_in,
    prompt_tokens,
    results_in,
    seed_in,
    tool_for,
    within_context,
)

Event = dict[str, Any]

NUMBERS = frozenset({"output_index", "content_index", "logprobs"})
"""Fields of events that llama.cpp leaves out, beside the number."""


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return what a request wants."""
    given = given_to(body, model)
    messages = [*_instructions(given.get("instructions")), *_messages(given.get("input"))]
    tools = [*_tools(given.get("tools")), *_brought(given.get("input"))]
    return within_context(
        CheckedRequest(
            model=model,
            prompt_tokens=prompt_tokens(messages, tools),
            limit=limit_in(given, "max_output_tokens"),
            choices=1,
            stream=flag(given, "stream"),
            include_usage=True,
            continuous_usage=False,
            seed=seed_in(given),
            tool=tool_for(_choice(given.get("tool_choice")), _schemas(tools), messages),
            results=results_in([str(message["role"]) for message in messages]),
            previous=_previous(given.get("previous_response_id")),
            references=_references(given.get("input")),
            form=form_in(_object(given.get("text")).get("format")),
        ),
        context_tokens,
    )


def _previous(given: Any) -> str | None:
    if given is not None and not isinstance(given, str):
        raise BadRequest("previous_response_id is a string.", param="previous_response_id", code="invalid_type")
    return given


def _instructions(given: Any) -> list[dict[str, Any]]:
    if given is not None and not isinstance(given, str):
        raise BadRequest("instructions is a string.", param="instructions", code="invalid_type")
    return [{"role": "system", "content": given}] if given else []


def _messages(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not is_list_of_objects(given) or not given:
        raise BadRequest("input is a string or a list of items.", param="input", code="invalid_type")
    return [_message(item) for item in given]


def _message(item: dict[str, Any]) -> dict[str, Any]:
    kind = str(item.get("type", "message"))
    if kind == "message":
        return {"role": item.get("role"), "content": item.get("content")}
    if kind.endswith("_output"):
        given = item.get("output")
        return {"role": "tool", "content": given if isinstance(given, str) or is_list_of_objects(given) else None}
    if kind == "additional_tools":
        return {"role": item.get("role"), "content": None}
    if kind in ("reasoning", "item_reference"):
        return {"role": "assistant", "content": None}
    if kind.endswith("_call"):
        said = item.get("arguments") or item.get("input") or ""
        return {"role": "assistant", "content": f"{item.get('name', kind)}{said}"}
    raise BadRequest(
        "An item is a message, a call of a tool, what it returned, reasoning or a reference.", param="input"
    )


def _references(given: Any) -> tuple[str, ...]:
    """Return the ids of items that are brought back by their names."""
    items = given if isinstance(given, list) else []
    return tuple(str(item.get("id")) for item in items if item.get("type") == "item_reference")


def _tools(given: Any) -> list[dict[str, Any]]:
    is_list = is_list_of_objects(given) and all(isinstance(one.get("name", one.get("type")), str) for one in given)
    if given is not None and not is_list:
        raise BadRequest("tools is a list of tools, each with a name or a type.", param="tools", code="invalid_type")
    return given or []


def _brought(given: Any) -> list[dict[str, Any]]:
    """Return the tools that items bring, as Codex' first item does."""
    items = given if isinstance(given, list) else []
    return [tool for item in items if item.get("type") == "additional_tools" for tool in _tools(item.get("tools"))]


def _schemas(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the schemas of the functions among tools by name, also of those in a namespace."""
    inner = [one for tool in tools if is_list_of_objects(tool.get("tools")) for one in tool["tools"]]
    functions = [tool for tool in (*tools, *inner) if tool.get("type") == "function"]
    return {str(tool.get("name")): tool.get("parameters") for tool in functions}


def _object(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def _choice(given: Any) -> Any:
    return given.get("name") if isinstance(given, dict) else given


def whole(reply: Reply) -> bytes:
    """Return the answer as one ``response``."""
    return to_json(_response(reply, done=True))


def _response(reply: Reply, *, done: bool) -> dict[str, Any]:
    [choice] = reply.choices
    is_cut = choice.finish == "length"
    made = reply.tokens_after(reply.steps)
    usage = {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.prompt_tokens + made,
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
        called = {"call_id": f"fc_{choice.call_id}", "name": choice.name, "arguments": text}
        return {"type": "function_call", "status": status, **called}
    if isinstance(choice, ToolCall):
        called = {"call_id": choice.call_id, "name": choice.name, "arguments": text}
        return {"id": f"fc_{reply.id}", "type": "function_call", "status": status, **called}
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
        ended = "completed" if self._reply.engine in ("vllm", "sglang", "llamacpp") else response["status"]
        return b"".join(events) + self._event({"type": f"response.{ended}", "response": response})

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
            pass  # the item has it
        elif isinstance(self._choice, ToolCall):
            said = {"name": self._choice.name, "arguments": self._text}
            yield {"type": "response.function_call_arguments.done", **self._at, **said}
        else:
            at = {**self._at, "content_index": 0}
            yield {"type": "response.output_text.done", **at, "text": self._text, "logprobs": []}
            yield {"type": "response.content_part.done", **at, "part": _part(self._text)}
        item = _item(self._reply, self._text, done=True)
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}

    def _event(self, event: Event) -> bytes:
        self._number += 1
        if self._reply.engine == "llamacpp":
            numbered = to_json({name: value for name, value in event.items() if name not in NUMBERS})
        else:
            numbered = to_json({**event, "sequence_number": self._number})
        return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), numbered)
