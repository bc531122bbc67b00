"""What a caller makes of an answer with its vendor's own SDK: every event accepted by the models, then put together."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.serving.dialects.chat import Chat
from gateway.serving.dialects.completions import Completions

DONE = "[DONE]"


def events(raw: bytes) -> list[str]:
    """Return the data of the events of a stream of ours; no byte of it may be anything else."""
    text = raw.decode()  # strictly: half a character ends a client
    assert text.endswith("\n\n"), text[-200:]
    found = []
    for part in text[:-2].split("\n\n"):
        lines = [line for line in part.split("\n") if not line.startswith(":")]
        found += [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return found


def strict_json(text: str | bytes) -> Any:
    """Return what a JSON text says, as RFC 8259 has it: NaN and Infinity are none of it, nor is half a character."""
    said = json.loads(text, parse_constant=_refused)
    json.dumps(said, ensure_ascii=False).encode()
    return said


def _refused(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def chat_stream(said: list[dict[str, Any]]) -> Any:
    state = ChatCompletionStreamState()
    for chunk in said:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    whole = state.current_completion_snapshot.model_dump(mode="json", warnings=False)
    for choice in whole["choices"]:
        ends = [
            one["finish_reason"]
            for chunk in said
            for one in chunk["choices"]
            if one["index"] == choice["index"] and one.get("finish_reason")
        ]
        assert len(ends) == 1, f"a choice ends once, not {ends}"
    return whole


def completion_stream(said: list[dict[str, Any]]) -> Any:
    whole: dict[str, Any] = {"choices": {}, "usage": None}
    for chunk in said:
        if chunk["choices"]:
            Completion.model_validate(_finished(chunk))
        whole["usage"] = chunk.get("usage") or whole["usage"]
        for one in chunk["choices"]:
            choice = whole["choices"].setdefault(one["index"], {"index": one["index"], "text": ""})
            choice["text"] += one["text"]
            if one.get("finish_reason"):
                assert "finish_reason" not in choice, "a choice ends once"
                choice["finish_reason"] = one["finish_reason"]
    return {**whole, "choices": [whole["choices"][index] for index in sorted(whole["choices"])]}


def _finished(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk as the model of a whole completion takes it: OpenAI publishes none of its chunks."""
    return {
        **chunk,
        "choices": [{**one, "finish_reason": one.get("finish_reason") or "stop"} for one in chunk["choices"]],
    }


def chat_whole(said: Any) -> Any:
    ChatCompletion.model_validate(said)
    return said


def completion_whole(said: Any) -> Any:
    Completion.model_validate(said)
    return said


STREAMS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    Chat.endpoint: chat_stream,
    Completions.endpoint: completion_stream,
}
WHOLES: dict[str, Callable[[Any], Any]] = {Chat.endpoint: chat_whole, Completions.endpoint: completion_whole}


def heard_stream(endpoint: str, raw: bytes) -> tuple[Any, Any]:
    """Return what a streamed answer puts together to, and the error that ended it, if one did."""
    said = events(raw)
    ended = said[-1] == DONE
    chunks = [strict_json(data) for data in said if data != DONE]
    error = chunks.pop()["error"] if chunks and "error" in chunks[-1] else None
    assert ended == (error is None), said[-1]
    return (STREAMS[endpoint](chunks) if chunks else None), error


def heard_whole(endpoint: str, said: Any) -> Any:
    """Return a whole answer, once its vendor's model has accepted it."""
    return WHOLES[endpoint](said)
