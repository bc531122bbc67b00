"""All text that reaches a caller is counted: text in an uncounted place does not pass, in any format."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.serving.dialects.answers.chat_answer import ChatReading
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.completions import CompletionsReading
from gateway.serving.dialects.messages import MessagesReading
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.responses import ResponsesReading
from gateway.serving.meter import count_output

Json = dict[str, Any]

GRANT, PIECES, HIDDEN = 5, 500, "smuggled"


def wanted(*, stream: bool) -> Parameters:
    return Parameters("aligned-1", None, 1, stream, True, (), None, 100, 10)


def chat(delta: Json, **more: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more.pop("choice", {})}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def block(delta: Json) -> Json:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", **delta}}


UNCOUNTED: dict[str, tuple[type[Reading], Json]] = {
    "a delta": (ChatReading, chat({"smuggle": HIDDEN})),
    "a list in a delta": (ChatReading, chat({"smuggle": [{"text": HIDDEN}]})),
    "a choice": (ChatReading, chat({}, choice={"smuggle": HIDDEN})),
    "a choice's text": (ChatReading, chat({}, choice={"text": HIDDEN})),
    "a chunk": (ChatReading, chat({}, smuggle={"deep": [HIDDEN]})),
    "a completion's choice": (
        CompletionsReading,
        {"id": "c", "choices": [{"index": 0, "text": "", "smuggle": HIDDEN}]},
    ),
    "a completion's delta": (CompletionsReading, {"id": "c", "choices": [{"index": 0, "delta": {"content": HIDDEN}}]}),
    "an event": (ResponsesReading, {"type": "response.smuggle", "smuggle": HIDDEN}),
    "an event of progress": (ResponsesReading, {"type": "response.web_search_call.searching", "smuggle": HIDDEN}),
    "a block's delta": (MessagesReading, block({"smuggle": HIDDEN})),
    "a block": (
        MessagesReading,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "smuggle": HIDDEN}},
    ),
}

COUNTED: dict[str, tuple[type[Reading], Json]] = {
    "reasoning": (ChatReading, chat({"reasoning": HIDDEN})),
    "reasoning_content": (ChatReading, chat({"reasoning_content": HIDDEN})),
    "reasoning_text": (ChatReading, chat({"reasoning_text": HIDDEN})),
    "reasoning_details": (
        ChatReading,
        chat({"reasoning_details": [{"type": "reasoning.text", "text": HIDDEN, "index": 0}]}),
    ),
    "a summary of reasoning": (
        ChatReading,
        chat({"reasoning_details": [{"type": "reasoning.summary", "summary": HIDDEN}]}),
    ),
    "thinking": (ChatReading, chat({"thinking": HIDDEN})),
    "thinking_blocks": (ChatReading, chat({"thinking_blocks": [{"type": "thinking", "thinking": HIDDEN}]})),
    "think in the text": (ChatReading, chat({"content": f"<think>{HIDDEN}"})),
    "a delta of any kind": (ResponsesReading, {"type": "response.smuggle.delta", "delta": HIDDEN}),
    "a delta that is an object": (ResponsesReading, {"type": "response.smuggle.delta", "delta": {"text": HIDDEN}}),
    "a summary": (ResponsesReading, {"type": "response.reasoning_summary_text.delta", "item_id": "r", "delta": HIDDEN}),
    "a block of thinking": (MessagesReading, block({"type": "thinking_delta", "thinking": HIDDEN})),
}


def streamed(kind: type[Reading], event: Json) -> tuple[Reading, bytes]:
    reading = kind(wanted(stream=True), GRANT)
    shown = b"".join(reading.feed(b"data: " + json.dumps(event).encode() + b"\n\n") for _ in range(PIECES))
    return reading, shown


@pytest.mark.parametrize("place", UNCOUNTED)
def test_text_in_a_place_that_nobody_counts_does_not_pass(place: str) -> None:
    _, shown = streamed(*UNCOUNTED[place])
    assert HIDDEN.encode() not in shown


@pytest.mark.parametrize("place", COUNTED)
def test_what_was_thought_is_output_in_any_spelling(place: str) -> None:
    """An upstream that ignores its limit is cut at the grant."""
    reading, shown = streamed(*COUNTED[place])
    assert shown.partition(b"output_item.done")[0].count(HIDDEN.encode()) == GRANT
    assert count_output(reading.observed, GRANT).billed_output_tokens == GRANT
    assert reading.is_over()


WHOLES: dict[str, tuple[type[Reading], Json]] = {
    "a message": (ChatReading, {"choices": [{"index": 0, "message": {"content": "a", "smuggle": HIDDEN}}]}),
    "a choice": (ChatReading, {"choices": [{"index": 0, "message": {"content": "a"}, "smuggle": [HIDDEN]}]}),
    "an answer": (ChatReading, {"choices": [{"index": 0, "message": {"content": "a"}}], "smuggle": HIDDEN}),
    "a completion": (CompletionsReading, {"choices": [{"index": 0, "text": "a", "smuggle": HIDDEN}]}),
    "a block": (MessagesReading, {"content": [{"type": "text", "text": "a", "smuggle": HIDDEN}]}),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("place", WHOLES)
def test_nor_in_an_answer_that_comes_whole(place: str, stream: bool) -> None:
    kind, answer = WHOLES[place]
    reading = kind(wanted(stream=stream), GRANT)
    shown = reading.feed_whole(json.loads(json.dumps(answer)))
    assert HIDDEN not in shown.decode() + json.dumps(reading.whole(1))


def test_what_is_no_text_passes_whatever_it_is() -> None:
    _, shown = streamed(ChatReading, chat({"content": "a", "speed": 3, "flags": [True, None, ""]}, latency={"ms": 1.5}))
    assert all(part in shown for part in (b'"speed":3', b'"flags":[true,null,""]', b'"ms":1.5'))
