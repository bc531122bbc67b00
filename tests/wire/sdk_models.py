"""Reads answers with their vendors' own SDKs: the SDK's models accept every event, and its client assembles them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from gateway.serving.dialects.chat import Chat
from gateway.serving.dialects.completions import Completions
from gateway.serving.dialects.messages import Messages
from gateway.serving.dialects.responses import Responses
from tests.late import Library

ANTHROPIC, OPENAI, CHAT, RESPONSES = map(
    Library, ("anthropic.types", "openai.types", "openai.types.chat", "openai.types.responses")
)
MESSAGE_STREAM, CHAT_STREAM, RESPONSES_STREAM = map(
    Library,
    ("anthropic.lib.streaming._messages", "openai.lib.streaming.chat", "openai.lib.streaming.responses._responses"),
)
DONE = "[DONE]"


@cache
def response_events() -> dict[str, type[BaseModel]]:
    """Return the models of the events of a Responses stream, by their types."""
    models = get_args(get_args(RESPONSES.ResponseStreamEvent)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


@cache
def message_event() -> TypeAdapter[Any]:
    """Return the adapter that validates an event of a Messages stream."""
    return TypeAdapter(ANTHROPIC.RawMessageStreamEvent)


def events(raw: bytes) -> list[str]:
    """Return the data of the events of a gateway's stream, which must be complete and in UTF-8."""
    text = raw.decode()  # strict: half a character makes a client fail
    assert text.endswith("\n\n"), text[-200:]
    found = []
    for part in text[:-2].split("\n\n"):
        lines = [line for line in part.split("\n") if not line.startswith(":")]
        found += [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return found


def strict_json(text: str | bytes) -> Any:
    """Parse a JSON text strictly by RFC 8259: NaN, Infinity and half a surrogate pair are errors."""
    answer = json.loads(text, parse_constant=_refused)
    json.dumps(answer, ensure_ascii=False).encode()
    return answer


def _refused(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def chat_stream(answer: list[dict[str, Any]]) -> Any:
    state = CHAT_STREAM.ChatCompletionStreamState()
    for chunk in answer:
        state.handle_chunk(CHAT.ChatCompletionChunk.model_validate(chunk))
    whole = state.current_completion_snapshot.model_dump(mode="json", warnings=False)
    for choice in whole["choices"]:
        ends = [
            one["finish_reason"]
            for chunk in answer
            for one in chunk["choices"]
            if one["index"] == choice["index"] and one.get("finish_reason")
        ]
        assert len(ends) == 1, f"a choice ends once, not {ends}"
    return whole


def completion_stream(answer: list[dict[str, Any]]) -> Any:
    whole: dict[str, Any] = {"choices": {}, "usage": None}
    for chunk in answer:
        if chunk["choices"]:
            OPENAI.Completion.model_validate(finished(chunk))
        whole["usage"] = chunk.get("usage") or whole["usage"]
        for one in chunk["choices"]:
            choice = whole["choices"].setdefault(one["index"], {"index": one["index"], "text": ""})
            choice["text"] += one["text"]
            if one.get("finish_reason"):
                assert "finish_reason" not in choice, "a choice ends once"
                choice["finish_reason"] = one["finish_reason"]
    return {**whole, "choices": [whole["choices"][index] for index in sorted(whole["choices"])]}


def finished(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk in the form of a whole completion, since OpenAI publishes no model of a completion's chunk."""
    return {
        **chunk,
        "choices": [{**one, "finish_reason": one.get("finish_reason") or "stop"} for one in chunk["choices"]],
    }


def responses_stream(answer: list[dict[str, Any]]) -> Any:
    responses_state(answer)
    numbers = [event["sequence_number"] for event in answer]
    assert numbers == sorted(set(numbers)), "each event has a number of its own"
    whole = answer[-1]["response"]
    done = [event["item"] for event in answer if event["type"] == "response.output_item.done"]
    assert whole["status"] in ("completed", "incomplete")
    assert answer[-1]["type"] == f"response.{whole['status']}"
    assert [(item["type"], item.get("id")) for item in done] == [
        (item["type"], item.get("id")) for item in whole["output"]
    ]
    for place, item in enumerate(whole["output"]):
        for kind, text in _written(item):
            deltas = [one["delta"] for one in answer if one["type"] == kind and one["output_index"] == place]
            assert "".join(deltas) in (text, ""), "deltas say what the item says"
            assert deltas or not kind.endswith("output_text.delta") or not text
    return responses_whole(whole)


def responses_state(answer: list[dict[str, Any]]) -> None:
    """Feed every event to the vendor's client."""
    state = RESPONSES_STREAM.ResponseStreamState(input_tools=[], text_format=Library("openai").Omit())
    for event in answer:
        if event["type"] in response_events():  # the client ignores other types
            state.handle_event(response_events()[event["type"]].model_validate(event))


def _written(item: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the types of the deltas of an item's texts, and the texts."""
    if item["type"] == "message":
        return [("response.output_text.delta", "".join(part.get("text", "") for part in item["content"]))]
    if item["type"] == "function_call":
        return [("response.function_call_arguments.delta", item["arguments"])]
    return []


def responses_whole(answer: Any) -> Any:
    RESPONSES.Response.model_validate(answer)
    return answer


def messages_stream(answer: list[dict[str, Any]]) -> Any:
    whole: Any = None
    opened: list[int] = []
    pieces: dict[int, bytes] = {}
    for event in answer:
        if event["type"] != "ping":
            taken = message_event().validate_python(event)
            whole = MESSAGE_STREAM.accumulate_event(event=taken, current_snapshot=whole, json_bufs=pieces)
        if event["type"] == "content_block_start":
            assert event["index"] == len(whole.content) - 1, "blocks come in their order"
            opened.append(event["index"])
        elif event["type"] == "content_block_stop":
            opened.remove(event["index"])
    assert not opened, "each block is closed"
    assert answer[-1]["type"] == "message_stop"
    return whole.model_dump(mode="json", warnings=False)


def messages_whole(answer: Any) -> Any:
    ANTHROPIC.Message.model_validate(answer)
    return answer


def chat_whole(answer: Any) -> Any:
    CHAT.ChatCompletion.model_validate(answer)
    return answer


def completion_whole(answer: Any) -> Any:
    OPENAI.Completion.model_validate(answer)
    return answer


STREAMS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    Chat.endpoint: chat_stream,
    Completions.endpoint: completion_stream,
    Responses.endpoint: responses_stream,
    Messages.endpoint: messages_stream,
}
WHOLES: dict[str, Callable[[Any], Any]] = {
    Chat.endpoint: chat_whole,
    Completions.endpoint: completion_whole,
    Responses.endpoint: responses_whole,
    Messages.endpoint: messages_whole,
}
ENDS = frozenset({"response.completed", "response.incomplete", "message_stop"})
"""Types of the last events of formats without ``[DONE]``."""


def read_stream(endpoint: str, raw: bytes) -> tuple[Any, Any]:
    """Return the assembled answer of a stream, and the error that ended the stream, if any."""
    answer = events(raw)
    chunks = [strict_json(data) for data in answer if data != DONE]
    ended = answer[-1] == DONE or chunks[-1].get("type") in ENDS
    error = chunks.pop()["error"] if chunks and "error" in chunks[-1] else None
    assert ended == (error is None), answer[-1]
    return (STREAMS[endpoint](chunks) if chunks and error is None else None), error


def read_whole(endpoint: str, answer: Any) -> Any:
    """Return a whole answer, after its vendor's model has validated it."""
    return WHOLES[endpoint](answer)
