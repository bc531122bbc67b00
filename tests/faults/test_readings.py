"""Nothing that an upstream sends, in any format, breaks the count, gets past the grant, or becomes invalid JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.completions import CompletionsReading
from gateway.serving.dialects.messages import MessagesReading
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.responses import ResponsesReading
from gateway.serving.meter import count_output

SCALAR = st.none() | st.booleans() | st.integers(-2, 9) | st.floats(allow_nan=False) | st.text(max_size=4)
ANYTHING = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
)
PLACE = st.integers(0, 2) | ANYTHING
TEXT = st.text(max_size=4) | ANYTHING


def objects(**fields: Any) -> Any:
    return st.fixed_dictionaries({}, optional=fields) | ANYTHING


USAGE = objects(
    input_tokens=st.integers(0, 99) | ANYTHING,
    output_tokens=st.integers(0, 99) | ANYTHING,
    prompt_tokens=st.integers(0, 99),
    completion_tokens=st.integers(0, 99) | ANYTHING,
    cache_read_input_tokens=ANYTHING,
    output_tokens_details=ANYTHING,
    input_tokens_details=ANYTHING,
)
PART = objects(type=st.sampled_from(["output_text", "refusal"]), text=TEXT, refusal=TEXT)
ITEM = objects(
    type=st.sampled_from(["message", "function_call", "reasoning"]),
    id=TEXT,
    call_id=TEXT,
    status=TEXT,
    arguments=TEXT,
    content=st.lists(PART, max_size=2) | ANYTHING,
    summary=st.lists(PART, max_size=2) | ANYTHING,
)
RESPONSE = objects(
    id=TEXT,
    status=st.sampled_from(["completed", "incomplete"]),
    output=st.lists(ITEM, max_size=3) | ANYTHING,
    usage=USAGE,
)
BLOCK = objects(
    type=st.sampled_from(["text", "tool_use", "thinking"]), id=TEXT, text=TEXT, thinking=TEXT, input=ANYTHING
)
MESSAGE = objects(id=TEXT, content=st.lists(BLOCK, max_size=3) | ANYTHING, stop_reason=TEXT, usage=USAGE)
KINDS = {
    ResponsesReading: [
        *(f"response.{name}" for name in ("created", "completed", "incomplete", "output_item.added")),
        *(f"response.{name}" for name in ("output_item.done", "content_part.added", "content_part.done")),
        *(f"response.{name}.delta" for name in ("output_text", "refusal", "function_call_arguments")),
        *(f"response.{name}.delta" for name in ("reasoning_text", "reasoning_summary_text", "custom_tool_call_input")),
        *("response.reasoning_summary_part.added", "response.output_text.done", "ping", "a\nb", "\ud800"),
    ],
    MessagesReading: [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"),
        *("message_stop", "ping", "something"),
    ],
    CompletionsReading: ["text_completion"],
}
WHOLES = {
    ResponsesReading: RESPONSE,
    MessagesReading: MESSAGE,
    CompletionsReading: objects(
        choices=st.lists(objects(index=PLACE, text=TEXT, finish_reason=TEXT), max_size=3) | ANYTHING, usage=USAGE
    ),
}
every_reading = pytest.mark.parametrize("reading_of", KINDS)


def events(reading_of: type[Reading]) -> Any:
    return st.lists(
        objects(
            type=st.sampled_from(KINDS[reading_of]),
            response=RESPONSE,
            output_index=PLACE,
            content_index=PLACE,
            summary_index=PLACE,
            sequence_number=PLACE,
            item=ITEM,
            part=PART,
            index=PLACE,
            content_block=BLOCK,
            message=MESSAGE,
            delta=objects(text=TEXT, partial_json=TEXT, thinking=TEXT, stop_reason=TEXT, citation=ANYTHING)
            | st.text(max_size=4),
            usage=USAGE,
            choices=st.lists(objects(index=PLACE, text=TEXT, finish_reason=TEXT), max_size=3) | ANYTHING,
        ),
        max_size=12,
    )


def holds(reading: Reading, grant: int) -> None:
    """Assert what must be true of every reading, whatever it was fed."""
    counted = count_output(reading.observed, grant)
    assert 0 <= counted.billed_output_tokens <= grant
    assert json.dumps(reading.whole(counted.billed_output_tokens))
    assert reading.ending(counted.billed_output_tokens, 0, 0).endswith(b"\n\n")
    assert all(isinstance(text, str) for text in [*reading.tails, *reading.tool_calls, *reading.reasons])
    assert reading.answer_id is None or isinstance(reading.answer_id, str)
    assert all(isinstance(text, str) for texts in reading.texts or () for text in texts)


def wanted(*, stream: bool) -> Parameters:
    return Parameters("m", None, 1, stream, True, (), None, 100, 25)


@every_reading
@given(data=st.data(), stream=st.booleans(), grant=st.integers(1, 4))
@settings(max_examples=150)
def test_no_stream_whatever_it_holds(reading_of: Any, data: st.DataObject, stream: bool, grant: int) -> None:
    reading = reading_of(wanted(stream=stream), grant)
    reading.remember_texts()
    for event in data.draw(events(reading_of)):
        shown = reading.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
        assert shown == b"" or shown.endswith(b"\n\n")
        assert shown == b"" or stream
        if reading.failure is not None or reading.is_over():
            break
    reading.close()

    holds(reading, grant)


@every_reading
@given(data=st.data(), stream=st.booleans(), grant=st.integers(1, 4))
@settings(max_examples=150)
def test_no_whole_answer_whatever_it_holds(reading_of: Any, data: st.DataObject, stream: bool, grant: int) -> None:
    reading = reading_of(wanted(stream=stream), grant)
    reading.remember_texts()
    try:
        reading.feed_whole(data.draw(WHOLES[reading_of]))
    except UpstreamError:
        reading.close()

    holds(reading, grant)
