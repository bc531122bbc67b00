"""Answers that are mostly visible reasoning: relayed text of any field is billed, whatever the usage says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from gateway.serving.caller.exchange import Receive, Scope, Send
from tests.faults.dialects import Chat, Completions, Messages, Responses
from tests.loop.rig import Rig, rig
from tests.servers import short_directory, valkey_in

Json = dict[str, Any]

THOUGHT, GRANT, MOST = "mull", 5, 500
"""One piece of reasoning, about a token; how many tokens are granted; and how many pieces are made then."""

PIECES = 300
FIGURES: Json = {"prompt_tokens": 32, "completion_tokens": 1, "total_tokens": 32 + PIECES + 1}
DETAILED = FIGURES | {"completion_tokens_details": {"reasoning_tokens": PIECES}}
OF_RESPONSES: Json = {"input_tokens": 32, "output_tokens": 1, "total_tokens": 32 + PIECES + 1}
OF_RESPONSES |= {"output_tokens_details": {"reasoning_tokens": PIECES}}
OF_MESSAGES = {"input_tokens": 32, "output_tokens": 1}


def of_chat(pieces: int, figures: Json | None, *, stream: bool) -> list[Json]:
    frame = {"id": "c", "created": 1, "model": "upstream"}
    usage = {"usage": figures or DETAILED}
    if not stream:
        details = [{"type": "reasoning.text", "text": THOUGHT * pieces}]
        message = {"role": "assistant", "content": "so", "reasoning_details": details}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return [{**frame, "object": "chat.completion", "choices": choices, **usage}]
    deltas: list[Json] = [{"reasoning_details": [{"type": "reasoning.text", "text": THOUGHT}]}] * pieces
    chunks: list[Json] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in (*deltas, {"content": "so"})]
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [*({**frame, "choices": [choice]} for choice in (*chunks, end)), {**frame, "choices": [], **usage}]


def of_completions(pieces: int, figures: Json | None, *, stream: bool) -> list[Json]:
    """This format has no field for reasoning, so the reasoning is text."""
    frame, usage = {"id": "c", "created": 1, "model": "upstream"}, {"usage": figures or FIGURES}
    texts = [*[THOUGHT] * pieces, "so"] if stream else [THOUGHT * pieces + "so"]
    choices: list[Json] = [{"index": 0, "text": text, "finish_reason": None} for text in texts]
    choices[-1] = choices[-1] | {"finish_reason": "stop"}
    chunks = [{**frame, "choices": [choice]} for choice in choices]
    return [*chunks, {**frame, "choices": [], **usage}] if stream else [chunks[0] | usage]


def of_responses(pieces: int, figures: Json | None, *, stream: bool) -> list[Json]:
    thought = {"type": "reasoning_text", "text": THOUGHT * pieces}
    item = {"id": "rs", "type": "reasoning", "summary": [], "content": [thought]}
    part = {"type": "output_text", "text": "so", "annotations": []}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    response = {"id": "r", "object": "response", "status": "completed", "model": "upstream", "output": [item, message]}
    response["usage"] = figures or OF_RESPONSES
    if not stream:
        return [response]
    delta = {"type": "response.reasoning_text.delta", "item_id": "rs", "output_index": 0, "content_index": 0}
    at = {"item_id": "m", "output_index": 1, "content_index": 0}
    return [
        {"type": "response.created", "response": response | {"status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        *[{**delta, "delta": THOUGHT}] * pieces,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.output_item.added", "output_index": 1, "item": message | {"content": []}},
        {"type": "response.content_part.added", **at, "part": part | {"text": ""}},
        {"type": "response.output_text.delta", **at, "delta": "so"},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {"type": "response.completed", "response": response},
    ]


def of_messages(pieces: int, figures: Json | None, *, stream: bool) -> list[Json]:
    """The usage of this format has no field for reasoning, so it reports less than was shown."""
    blocks: list[Json] = [{"type": "thinking", "thinking": THOUGHT * pieces}, {"type": "text", "text": "so"}]
    message = {"id": "m", "type": "message", "role": "assistant", "model": "upstream", "stop_reason": "end_turn"}
    message |= {"content": blocks, "usage": figures or OF_MESSAGES}
    if not stream:
        return [message]
    deltas: list[Json] = [{"type": "thinking_delta", "thinking": THOUGHT}] * pieces
    return [
        {"type": "message_start", "message": message | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "so"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": figures or OF_MESSAGES},
        {"type": "message_stop"},
    ]


Said = Callable[..., list[Json]]
SAID: dict[Any, Said] = {Chat: of_chat, Completions: of_completions, Responses: of_responses, Messages: of_messages}
every_format = pytest.mark.parametrize("dialect", SAID, ids=lambda dialect: dialect.__name__)
streamed_and_whole = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
with_a_key_and_without = pytest.mark.parametrize("key", [None, "once"], ids=["no key", "a key"])


class Thinker:
    """An upstream that shows ``pieces`` pieces of reasoning whatever its limit, and reports ``figures``, if set."""

    def __init__(self) -> None:
        self.pieces = PIECES
        self.figures: Json | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"]:
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        events_of = next((events_of for dialect, events_of in SAID.items() if dialect.endpoint == scope["path"]), None)
        if events_of is None:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        stream = bool(json.loads(body).get("stream"))
        events = events_of(self.pieces, self.figures, stream=stream)
        kind = b"text/event-stream" if stream else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        raw = b"".join(_event(event) for event in events) if stream else json.dumps(events[0]).encode()
        done = b"data: [DONE]\n\n" if stream and "choices" in events[0] else b""
        await send({"type": "http.response.body", "body": raw + done})


def _event(event: Json) -> bytes:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Thinker]]:
    thinker, directory = Thinker(), tmp_path_factory.mktemp("thinking")
    with (
        short_directory() as at,
        valkey_in(at) as url,
        rig(url, f"sqlite:///{directory / 'ledger.sqlite'}", directory, upstream=thinker) as loop,
    ):
        loop.tier("open", output_nanousd_per_mtok=1_000_000)
        loop.tier("five", conversation_tokens_max=GRANT, output_nanousd_per_mtok=1_000_000)
        yield loop, thinker


def post(loop: Rig, tier: str, dialect: Any, *, stream: bool, key: str | None) -> tuple[str, Json]:
    """Call once as a new customer; return the text of the answer and the record."""
    who = loop.customer(tier)
    headers = who.headers if key is None else who.headers | {"idempotency-key": key}
    request = {"model": "aligned-1", **dialect.request({}), "stream": stream}
    answer = httpx.post(loop.url + dialect.endpoint, json=request, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    (record,) = loop.usage(who)
    return answer.text, record


@every_format
@streamed_and_whole
@with_a_key_and_without
def test_thoughts_that_were_relayed_are_billed_though_the_usage_says_one_token(
    thinking: tuple[Rig, Thinker], dialect: Any, stream: bool, key: str | None
) -> None:
    loop, thinker = thinking
    thinker.pieces, thinker.figures = PIECES, None
    text, record = post(loop, "open", dialect, stream=stream, key=key)

    assert text.count(THOUGHT) >= PIECES
    assert record["billed_output_tokens"] == PIECES + 1
    assert record["charge_nanousd"] == PIECES + 1
    assert record["usage_dispute"] in ("itself", "text")


@every_format
@streamed_and_whole
@with_a_key_and_without
def test_no_more_is_thought_aloud_than_is_granted(
    thinking: tuple[Rig, Thinker], dialect: Any, stream: bool, key: str | None
) -> None:
    """The upstream ignores its limit, and puts reasoning in fields that a meter could overlook."""
    loop, thinker = thinking
    thinker.pieces, thinker.figures = MOST, None
    text, record = post(loop, "five", dialect, stream=stream, key=key)

    assert text.count(THOUGHT) <= 3 * GRANT, "a response has its text in deltas, in its item and in its end"
    assert record["billed_output_tokens"] == GRANT
    assert (record["finish"], record["charge_nanousd"]) == ("cap", GRANT)
