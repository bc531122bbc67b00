"""Promises for every answer, whatever its upstream sent: well-formed, ended as documented, counted, alike for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from gateway.serving.dialects.chat import Chat
from gateway.serving.dialects.completions import Completions
from gateway.serving.dialects.messages import Messages
from gateway.serving.dialects.responses import Responses
from tests.late import Library
from tests.wire.alone import CallResult
from tests.wire.sdk_models import (
    ANTHROPIC,
    CHAT,
    DONE,
    ENDS,
    OPENAI,
    RESPONSES,
    events,
    finished,
    message_event,
    response_events,
    strict_json,
)

CALLERS = range(400, 500)
PROMISED = (502, 503, 504)

TEXTS = ("content", "reasoning_content", "reasoning", "reasoning_text", "refusal")


class ReadAnswer:
    """The content of an answer, in a form that streamed and whole answers share."""

    def __init__(self, content: Any, usage: tuple[Any, Any] | None, pieces: list[int], error: Any = None) -> None:
        self.content = content
        self.usage = usage
        self.pieces = pieces
        """How many pieces of text each choice has; empty for a whole answer."""
        self.error = error


def read_answer(endpoint: str, result: CallResult, *, is_typed: bool = True) -> ReadAnswer:
    """Return an answer's content; assert its form, and if ``is_typed``, that its vendor's models accept it."""
    if not result.is_stream:
        answer = strict_json(result.body)
        if result.status != 200:
            assert result.status in PROMISED or result.status in CALLERS, f"answered {result.status}"
            return ReadAnswer(None, None, [], _error(answer))
        if is_typed:
            accept(WHOLES[endpoint], result.body.decode())
        return READ_WHOLE[endpoint](answer)
    assert result.status == 200
    parts = events(result.body)
    assert parts, "a stream says something"
    chunks = [strict_json(part) for part in parts if part != DONE]
    last = chunks[-1] if chunks else {}
    if "error" in last and parts[-1] != DONE:
        return ReadAnswer(None, None, pieces_of(endpoint, chunks[:-1]), _error(last))
    assert parts[-1] == DONE if endpoint.endswith("completions") else last.get("type") in ENDS, "ended as documented"
    assert parts.count(DONE) <= 1
    for part in parts if is_typed else ():
        if part != DONE:
            accept(CHUNKS[endpoint], part)
    return READ_STREAM[endpoint](chunks)


def _error(answer: Any) -> dict[str, Any]:
    error = answer["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    return {name: error.get(name) for name in ("message", "type", "code")}


@lru_cache(maxsize=100_000)
def accept(model: Callable[[Any], Any], text: str) -> None:
    """Validate a chunk or an answer with a vendor's own model."""
    model(json.loads(text))


def _completion_chunk(answer: Any) -> None:
    if answer["choices"]:
        OPENAI.Completion.model_validate(finished(answer))


def _response_event(answer: Any) -> None:
    if answer["type"] in response_events():
        response_events()[answer["type"]].model_validate(answer)


def by(library: Library, name: str) -> Callable[[Any], Any]:
    """Return a function that validates its argument with a vendor's model."""
    return lambda answer: getattr(library, name).model_validate(answer)


CHUNKS: dict[str, Callable[[Any], Any]] = {
    Chat.endpoint: by(CHAT, "ChatCompletionChunk"),
    Completions.endpoint: _completion_chunk,
    Responses.endpoint: _response_event,
    Messages.endpoint: lambda answer: answer["type"] == "ping" or message_event().validate_python(answer),
}
WHOLES: dict[str, Callable[[Any], Any]] = {
    Chat.endpoint: by(CHAT, "ChatCompletion"),
    Completions.endpoint: by(OPENAI, "Completion"),
    Responses.endpoint: by(RESPONSES, "Response"),
    Messages.endpoint: by(ANTHROPIC, "Message"),
}


def pieces_of(endpoint: str, chunks: list[Any]) -> list[int]:
    """Return how many pieces of text each choice has."""
    found: dict[int, int] = {}
    for chunk in chunks:
        if endpoint in (Chat.endpoint, Completions.endpoint):
            for choice in chunk["choices"]:
                delta = choice.get("delta") or {}
                if choice.get("text") or any(
                    delta.get(name) for name in (*TEXTS, "tool_calls", "function_call", "audio")
                ):
                    found[choice["index"]] = found.get(choice["index"], 0) + 1
        elif endpoint == Messages.endpoint:
            delta = chunk.get("delta")
            if chunk["type"] == "content_block_delta" and any(
                delta.get(n) for n in ("text", "thinking", "partial_json")
            ):
                found[0] = found.get(0, 0) + 1
        elif chunk["type"].endswith(".delta") and isinstance(chunk.get("delta"), str) and chunk["delta"]:
            found[0] = found.get(0, 0) + 1
    return list(found.values())


def _spoken(value: Any) -> str:
    """Return the text of a message, or of its parts."""
    parts = value if isinstance(value, list) else [value]
    return "".join(_spoken(part.get("text")) if isinstance(part, dict) else part or "" for part in parts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _usage(answer: Any, given: str, made: str) -> tuple[Any, Any]:
    return answer[given], answer[made]


def chat_stream(chunks: list[Any]) -> ReadAnswer:
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            one = choices.setdefault(choice["index"], {"calls": {}, "end": None})
            answer = choice.get("delta", {"content": choice.get("text")})
            for name in TEXTS:
                if text := _spoken(answer.get(name)):
                    assert one["end"] is None, "no text after a choice's end"
                    one[name] = one.get(name, "") + text
            for call in answer.get("tool_calls") or ():
                known = one["calls"].setdefault(call["index"], ["", "", ""])
                called = call.get("function") or {}
                for place, value in enumerate((call.get("id"), called.get("name"), called.get("arguments"))):
                    known[place] += _text(value)
            if choice.get("finish_reason"):
                assert one["end"] is None, "a choice ends once"
                one["end"] = choice["finish_reason"]
    assert all(one["end"] for one in choices.values()), "each choice ends"
    for one in choices.values():
        one["calls"] = [one["calls"][index] for index in sorted(one["calls"])]
    endpoint = Chat.endpoint
    return ReadAnswer(
        [choices[index] for index in sorted(choices)],
        _usage(usage, "prompt_tokens", "completion_tokens"),
        pieces_of(endpoint, chunks),
    )


def chat_whole(answer: Any) -> ReadAnswer:
    choices = []
    for choice in answer["choices"]:
        message = choice.get("message", {"content": choice.get("text")})
        texts = {name: text for name in TEXTS if (text := _spoken(message.get(name)))}
        calls = [
            [_text(one) for one in (call.get("id"), *map((call.get("function") or {}).get, ("name", "arguments")))]
            for call in message.get("tool_calls") or ()
        ]
        choices.append({"calls": calls, "end": choice["finish_reason"], **texts})
    return ReadAnswer(choices, _usage(answer["usage"], "prompt_tokens", "completion_tokens"), [])


def messages_stream(chunks: list[Any]) -> ReadAnswer:
    blocks: list[dict[str, Any]] = []
    opened: set[int] = set()
    ended: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    chunks = [chunk for chunk in chunks if chunk["type"] != "ping"]
    assert chunks[0]["type"] == "message_start"
    assert [chunk["type"] for chunk in chunks[-2:]] == ["message_delta", "message_stop"]
    usage.update(chunks[0]["message"]["usage"])
    for chunk in chunks[1:-2]:
        kind = chunk["type"]
        if kind == "content_block_start":
            assert chunk["index"] == len(blocks), "blocks come in their order"
            blocks.append({**chunk["content_block"], "pieces": ""})
            opened.add(chunk["index"])
        elif kind == "content_block_delta":
            assert chunk["index"] in opened, "a delta is of an open block"
            block, delta = blocks[chunk["index"]], chunk["delta"]
            for name in ("text", "thinking"):
                if isinstance(delta.get(name), str):
                    block[name] = (block.get(name) or "") + delta[name]
            block["pieces"] += delta.get("partial_json") or ""
        elif kind == "content_block_stop":
            opened.remove(chunk["index"])
    assert not opened, "each block is closed"
    ended, last = chunks[-2]["delta"], chunks[-2]["usage"]
    usage.update({name: value for name, value in last.items() if value is not None})
    for block in blocks:
        if pieces := block.pop("pieces"):
            try:
                block["input"] = json.loads(pieces)
            except ValueError:
                block["input"] = {}
    return ReadAnswer(
        [_block(one) for one in blocks] + [ended["stop_reason"]],
        _message_usage(usage),
        pieces_of(Messages.endpoint, chunks),
    )


def _block(block: dict[str, Any]) -> dict[str, Any]:
    return {name: block[name] for name in ("type", "text", "thinking", "id", "name", "input") if name in block}


def _message_usage(answer: Any) -> tuple[Any, Any]:
    given = sum(
        answer.get(name) or 0 for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    return given, answer["output_tokens"]


def messages_whole(answer: Any) -> ReadAnswer:
    return ReadAnswer(
        [_block(one) for one in answer["content"]] + [answer["stop_reason"]], _message_usage(answer["usage"]), []
    )


def responses_stream(chunks: list[Any]) -> ReadAnswer:
    numbers = [chunk["sequence_number"] for chunk in chunks]
    assert all(one < two for one, two in pairwise(numbers)), "each event has a number of its own"
    assert chunks[0]["type"] == "response.created"
    added, done = set(), []
    for chunk in chunks:
        kind = chunk["type"]
        if kind == "response.output_item.added":
            assert chunk["output_index"] not in added, "an item is announced once"
            added.add(chunk["output_index"])
        elif kind == "response.output_item.done":
            assert chunk["output_index"] in added
            done.append(chunk["item"])
        elif kind.endswith((".delta", ".done")) and "output_index" in chunk:
            assert chunk["output_index"] in added, "what is added to is announced"
    whole = chunks[-1]["response"]
    names = {one["response"].get("id") for one in chunks if isinstance(one.get("response"), dict)}
    assert len(names) == 1, "a response has one id"
    assert chunks[-1]["type"] == f"response.{whole['status']}"
    kinds = [[(item.get("type"), item.get("id")) for item in items] for items in (done, whole["output"])]
    assert sorted(map(str, kinds[0])) == sorted(map(str, kinds[1])), "what is done is what there is"
    return ReadAnswer(
        _output(whole), _usage(whole["usage"], "input_tokens", "output_tokens"), pieces_of(Responses.endpoint, chunks)
    )


def responses_whole(answer: Any) -> ReadAnswer:
    return ReadAnswer(_output(answer), _usage(answer["usage"], "input_tokens", "output_tokens"), [])


def _output(answer: Any) -> Any:
    names = ("type", "role", "content", "summary", "name", "arguments", "call_id", "input")
    return [{name: item[name] for name in names if name in item} for item in answer["output"]] + [answer["status"]]


READ_STREAM = {
    Chat.endpoint: chat_stream,
    Completions.endpoint: chat_stream,
    Responses.endpoint: responses_stream,
    Messages.endpoint: messages_stream,
}
READ_WHOLE = {
    Chat.endpoint: chat_whole,
    Completions.endpoint: chat_whole,
    Responses.endpoint: responses_whole,
    Messages.endpoint: messages_whole,
}


def recorded_as_answered(endpoint: str, result: CallResult) -> None:
    """Assert that the record of an answer that is relayed unchanged agrees with the answer's usage."""
    answer = strict_json(result.body)
    assert result.outcome.finish != "shutdown", "no traceback"
    assert 0 <= result.outcome.billed_output_tokens <= result.hold.tokens, "never above the grant"
    if result.status == 200:
        name = "completion_tokens" if endpoint.endswith("completions") else "output_tokens"
        assert answer["usage"][name] == result.outcome.billed_output_tokens
    else:
        assert result.status in PROMISED or result.status in CALLERS, f"answered {result.status}"
        _error(answer)


def billed_rightly(result: CallResult, read: ReadAnswer, *, came_whole: bool = False) -> None:
    """Assert that the record agrees with the answer and the grant; a piece of a whole answer is more than a token."""
    outcome, hold = result.outcome, result.hold
    assert outcome.finish != "shutdown", "no traceback"
    assert 0 <= outcome.billed_output_tokens <= hold.tokens, "never above the grant"
    assert came_whole or all(pieces <= hold.grant for pieces in read.pieces), "nothing relayed beyond the grant"
    if outcome.usage_source == "counted" and not came_whole and result.is_stream:
        assert outcome.billed_output_tokens >= sum(read.pieces), (outcome, read.pieces)
    if read.usage is not None:
        assert read.usage == (outcome.input_tokens, outcome.billed_output_tokens), (read.usage, outcome)


def agree(streamed: CallResult, of_stream: ReadAnswer, whole: CallResult, of_whole: ReadAnswer) -> None:
    """Assert that a streamed answer and a whole answer from the same upstream bytes agree."""
    assert of_stream.error == of_whole.error, (of_stream.error, of_whole.error)
    if of_stream.error is None:
        assert of_stream.content == of_whole.content, (of_stream.content, of_whole.content)
    names = ["finish", "output_tokens", "usage_source", "reasoning_tokens"]
    if of_stream.error is None:
        names.append("billed_output_tokens")
    for name in names:
        pair = [getattr(one.outcome, name) for one in (streamed, whole)]
        assert pair[0] == pair[1], (name, pair)
