"""No caller sees an answer's fields about the house's costs and providers, in any format and at any place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.serving.fields.answer_fields import HOUSES_OWN
from tests.gateway.serving.dialects.test_cuts import BEGINNINGS, FORMATS, WORD, Event, piece, reading, stream_of, whole

SECRET = "1234.56789"
VALUES = [SECRET, float(SECRET), {"upstream": float(SECRET)}]
a_value = pytest.mark.parametrize("value", VALUES, ids=["text", "number", "object"])


def with_own(event: Event, value: Any) -> Event:
    """Return an event with the house's own fields added, also to its message or response."""
    own = dict.fromkeys(HOUSES_OWN, value)
    inner = {name: {**event[name], **own} for name in ("message", "response") if isinstance(event.get(name), dict)}
    return {**event, **own, **inner}


@a_value
@pytest.mark.parametrize("endpoint", FORMATS)
def test_no_stream_shows_it(endpoint: str, value: Any) -> None:
    found = reading(endpoint, stream=True)
    events = [*BEGINNINGS[endpoint], *(piece(endpoint) for _ in range(3))]

    shown = b"".join(map(found.feed, stream_of(*(with_own(event, value) for event in events)))) + found.ending(
        3, None, None
    )

    assert WORD.encode() in shown
    assert SECRET.encode() not in shown


@a_value
@pytest.mark.parametrize("endpoint", FORMATS)
@pytest.mark.parametrize("stream", [True, False])
def test_no_whole_answer_shows_it(endpoint: str, stream: bool, value: Any) -> None:
    found = reading(endpoint, stream=stream)
    shown = found.feed_whole(with_own(whole(endpoint, 3, 3), value)) + json.dumps(found.whole(3)).encode()

    assert WORD.encode() in shown
    assert SECRET.encode() not in shown
