"""A choice ends once, with the upstream's last reason; text after an end is part of the answer, and is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.serving.caller.json_body import Body
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.registry import dialects
from gateway.serving.meter import count_output
from gateway.serving.upstream.profiles import ANY, CHAT

GRANT = 4


def reading(*, stream: bool, choices: int, **more: Any) -> Reading:
    chat = next(dialect for dialect in dialects(ANY) if dialect.endpoint == CHAT)
    body: Body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": stream, "n": choices}
    body |= more
    return chat.reading(chat.read(body, 100), grant=GRANT)


def chunk(text: str, end: str | None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": text} if text else {}, "finish_reason": end}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


def ends_shown(one: Reading, pieces: list[bytes], *, choices: int = 1) -> list[tuple[str, list[str]]]:
    """Return the text of each choice, and every finish reason of it that a streaming caller is sent."""
    shown = b"".join([*map(one.feed, pieces), one.close(), one.ending(1, None, None)]).decode()
    choices_shown: list[tuple[str, list[str]]] = [("", []) for _ in range(choices)]
    for data in shown.replace("data: [DONE]\n\n", "").split("data: ")[1:]:
        for choice in json.loads(data)["choices"]:
            text, ends = choices_shown[choice["index"]]
            ends += [choice["finish_reason"]] if choice["finish_reason"] else []
            choices_shown[choice["index"]] = text + (choice["delta"].get("content") or ""), ends
    return choices_shown


STOPS: dict[str, tuple[list[bytes], str, list[str]]] = {
    "in each chunk": ([chunk("a", "stop"), chunk("b", "stop"), chunk("c", "length")], "abc", ["length"]),
    "in each chunk, from the first without text": ([chunk("", "stop"), chunk("", "stop"), chunk("a", "tool_calls")], "a", ["tool_calls"]),
    "once, beside text": ([chunk("a", None), chunk("b", "stop")], "ab", ["stop"]),
    "once, alone": ([chunk("a", None), chunk("", "stop")], "a", ["stop"]),
    "twice": ([chunk("a", None), chunk("", "stop"), chunk("", "length")], "a", ["stop"]),
    "of nothing": ([chunk("", "stop")], "", ["stop"]),
    "beside text beyond the grant": ([chunk("a", "stop")] * 6, "aaaa", ["length"]),
}  # fmt: skip


@pytest.mark.parametrize("case", STOPS)
def test_an_answer_ends_once_and_with_all_of_its_text(case: str) -> None:
    pieces, text, ends = STOPS[case]
    one, whole = reading(stream=True, choices=1), reading(stream=False, choices=1)

    assert ends_shown(one, pieces) == [(text, ends)]
    for piece in pieces:
        whole.feed(piece)
    whole.close()
    [choice] = whole.whole(1)["choices"]
    assert (choice["message"]["content"] or "", [choice["finish_reason"]]) == (text, ends)
    assert one.reasons == whole.reasons == ends
    counted = count_output(one.observed, GRANT)
    assert counted.billed_output_tokens == len(text)


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


@pytest.mark.parametrize(("delta", "end"), [({"tool_calls": [CALL]}, "tool_calls"), ({"content": "a"}, "stop")])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_a_reason_ends_as_what_it_is(delta: dict[str, Any], end: str, stream: bool) -> None:
    """A client that runs tools relies on the reason: it never runs a tool call that ends with ``stop``."""
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    found = reading(stream=stream, choices=1, tools=tools)
    event = {"id": "c", "choices": [{"index": 0, "delta": delta}]}

    shown = found.feed(b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n") + found.close()

    if stream:
        choices_shown = [
            json.loads(data)["choices"][0] for data in shown.replace(b"data: [DONE]", b"").split(b"data: ")[1:]
        ]
        assert [choice["finish_reason"] for choice in choices_shown if choice.get("finish_reason")] == [end]
    else:
        assert found.whole(1)["choices"][0]["finish_reason"] == end
    assert found.reasons == [end]


@pytest.mark.parametrize("wants_usage", [True, False])
def test_every_event_says_that_the_usage_is_to_come_where_the_caller_wants_it(wants_usage: bool) -> None:
    """As OpenAI does, all events but the last have ``"usage": null`` if the caller requests usage, else none."""
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    found = reading(stream=True, choices=1, **options)

    shown = b"".join([found.feed(chunk("a", None)), found.feed(chunk("b", None)), found.feed(chunk("", "stop"))])

    events = [json.loads(data) for data in shown.decode().split("data: ")[1:]]
    assert len(events) >= 2
    assert [event.get("usage", "absent") for event in events] == [None if wants_usage else "absent"] * len(events)


def test_choices_that_end_in_each_chunk_in_turn_each_end_once() -> None:
    pieces = [chunk(text, "stop", index) for text in "abc" for index in (0, 1)]

    assert ends_shown(reading(stream=True, choices=2), pieces, choices=2) == [("abc", ["stop"]), ("abc", ["stop"])]


def test_text_after_an_end_of_its_own_is_delivered_and_counted() -> None:
    one = reading(stream=True, choices=1)

    [(text, ends)] = ends_shown(one, [chunk("a", None), chunk("", "stop"), chunk("b", None), chunk("", "length")])

    assert (text, ends[-1]) == ("ab", "length")
    assert one.observed.tokens == 2


def test_a_usage_said_before_more_text_is_not_the_last_word() -> None:
    def choices_shown(raw: bytes, tokens: int) -> bytes:
        event: dict[str, Any] = json.loads(raw.removeprefix(b"data: "))
        return b"data: " + json.dumps({**event, "usage": {"completion_tokens": tokens}}).encode() + b"\n\n"

    one = reading(stream=True, choices=1)
    for piece in [choices_shown(chunk("a", "stop"), 1), chunk("b", "stop"), chunk("c", "stop")]:
        one.feed(piece)
    one.close()

    assert count_output(one.observed, GRANT).output_tokens == 3
