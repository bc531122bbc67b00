"""Events that differ from an earlier event only in their text are taken together, and no others."""

from __future__ import annotations

import json

import pytest

from gateway.serving.dialects.answers.fast_path import fast_path_of
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.registry import dialects
from gateway.serving.meter import count_output
from gateway.serving.upstream.profiles import ANY, CHAT


def event(text: str, index: int = 0) -> bytes:
    """Return an event in the form of engines that write a choice's index after its text."""
    return b'{"id":"c","choices":[{"delta":{"content":%b},"index":%d}]}' % (json.dumps(text).encode(), index)


def shown(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":%b}}]}\n\n' % json.dumps(text).encode()


def reading(*events: bytes) -> Reading:
    """Return the reading of two choices of at most four tokens each, after events that arrived in one piece."""
    chat = next(dialect for dialect in dialects(ANY) if dialect.endpoint == CHAT)
    request = chat.read({"model": "m", "stream": True, "n": 2, "messages": [{"role": "user", "content": "Hello"}]}, 100)
    found = chat.reading(request, grant=4)
    found.remember_texts()
    found.feed(b"".join(b"data: %b\n\n" % data for data in events))
    return found


@pytest.mark.parametrize(
    ("later", "most", "taken", "text"),
    [
        ([event("b"), event("c d"), event('"e"\n')], 9, 3, 'bc d"e"\n'),
        ([event("b"), event("c"), event("d")], 2, 2, "bc"),
        ([event("b"), event("c", 1), event("d")], 9, 1, "b"),
        ([event("b"), event("c")[:-1] + b" "], 9, 1, "b"),
        ([event("b").replace(b'"id":"c"', b'"id":"d"')], 9, 0, ""),
        ([event(""), event("c")], 9, 0, ""),
        ([event("b"), event("é")], 9, 1, "b"),
        ([event("b")], 0, 0, ""),
        ([], 9, 0, ""),
    ],
)
def test_events_are_taken_as_long_as_only_their_text_differs(
    later: list[bytes], most: int, taken: int, text: str
) -> None:
    """The run stops at ``most``, at another choice or ending, and at an escape that may be half of a character."""
    path = fast_path_of(event("a"), shown("a"), 0)
    assert path is not None

    found = path.run([event("a"), *later], 1, most)

    assert found == (taken, text, b"".join(map(shown, text_of(later[:taken]))))


def text_of(events: list[bytes]) -> list[str]:
    return [json.loads(data)["choices"][0]["delta"]["content"] for data in events]


def test_choices_that_are_named_after_their_text_are_counted_apart() -> None:
    """Each of two choices has its own grant and text."""
    found = reading(event("a"), event("b"), event("c", 1), event("d"), event("e", 1))

    assert count_output(found.observed, 8).output_tokens == 5
    assert found.texts is not None
    assert ["".join(texts) for texts in found.texts] == ["abd", "ce"]


def test_no_choice_goes_over_its_grant_where_many_events_come_in_one_piece() -> None:
    found = reading(*(event(str(number)) for number in range(9)))

    assert count_output(found.observed, 8).output_tokens == 4
