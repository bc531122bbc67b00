"""Events are the same wherever a stream is cut, and an event without an end is given up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.serving.sse import COMMENT_MOST, EVENT_MOST, Events, EventTooLong

ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
SIZES = st.sampled_from((0, 1, 3, 4_090, 4_096, 4_100, 9_000))


@settings(max_examples=60)
@given(st.lists(SIZES, min_size=1, max_size=4), st.sampled_from(ENDS), st.lists(st.integers(1, 5_000), min_size=1))
def test_events_are_the_same_wherever_they_are_cut(sizes: list[int], end: bytes, steps: list[int]) -> None:
    wanted = [b"%d" % number + b"x" * size for number, size in enumerate(sizes)]
    stream = b"".join(b"data: " + data + end for data in wanted)
    events, found, place = Events(), list[bytes](), 0
    while place < len(stream):
        for step in steps:
            found += events.feed(stream[place : place + step])
            place += step
    found += events.close()

    assert found == wanted


def test_an_event_without_an_end_is_given_up() -> None:
    events = Events()
    with pytest.raises(EventTooLong):
        for _ in range(EVENT_MOST // 65_536 + 2):
            events.feed(b"x" * 65_536)


def test_a_comment_of_any_length_is_no_event_and_a_long_one_is_left_out() -> None:
    """A comment keeps a connection alive; a comment of a kilobyte is more than that."""
    short, long = (b":" + b"x" * (size - 1) for size in (COMMENT_MOST, COMMENT_MOST + 1))

    found = Events().feed(b"".join((short, b"\ndata: 1\n\n", long, b"\ndata: 2\n\n", long, b"\n\n")))

    assert found == [short, b"1", b"2"]
