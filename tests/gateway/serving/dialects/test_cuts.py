"""No answer exceeds its grant by a token, in any format, streamed or whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.serving.caller.json_body import Body
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.answers.thread_digests import TAIL_CHARACTERS
from gateway.serving.dialects.base import Dialect
from gateway.serving.dialects.registry import dialects
from gateway.serving.meter import Count, count_output
from gateway.serving.upstream.profiles import ANY, CHAT, COMPLETIONS, MESSAGES, RESPONSES

GRANT = 4
WORD = "zq"
MESSAGE = {"role": "user", "content": "Hello"}
FORMATS = (CHAT, COMPLETIONS, MESSAGES, RESPONSES)
Event = dict[str, Any]

BODIES: dict[str, Body] = {
    CHAT: {"messages": [MESSAGE]},
    COMPLETIONS: {"prompt": "Hello"},
    MESSAGES: {"messages": [MESSAGE], "max_tokens": 90},
    RESPONSES: {"input": "Hello"},
}

BEGINNINGS: dict[str, list[Event]] = {
    CHAT: [],
    COMPLETIONS: [],
    MESSAGES: [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ],
    RESPONSES: [
        {"type": "response.created", "response": {"id": "r"}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"id": "i", "type": "message", "role": "assistant", "content": []},
        },
        {
            "type": "response.content_part.added",
            "item_id": "i",
            "output_index": 0,
            "content_index": 0,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
    ],
}


def piece(endpoint: str, index: int = 0, **more: Any) -> Event:
    """Return an event with one token of text."""
    return {
        CHAT: {"id": "c", "choices": [{"index": index, "delta": {"content": WORD}, "finish_reason": None}]},
        COMPLETIONS: {"id": "c", "choices": [{"index": index, "text": WORD, "finish_reason": None}]},
        MESSAGES: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}},
        RESPONSES: {
            "type": "response.output_text.delta",
            "item_id": "i",
            "output_index": 0,
            "content_index": 0,
            "delta": WORD,
        },
    }[endpoint] | more


def whole(endpoint: str, reported: int, words: int, choices: int = 1) -> Any:
    """Return a whole answer with this many words in each choice, and a usage that reports ``reported`` tokens."""
    text = WORD * words
    usage = {"prompt_tokens": 1, "completion_tokens": reported, "total_tokens": 1 + reported}
    counts = {"input_tokens": 1, "output_tokens": reported}
    of_each: dict[str, Callable[[int], Event]] = {
        CHAT: lambda index: {
            "index": index,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        },
        COMPLETIONS: lambda index: {"index": index, "text": text, "finish_reason": "stop"},
    }
    if endpoint in of_each:
        return {"id": "c", "choices": [of_each[endpoint](index) for index in range(choices)], "usage": usage}
    if endpoint == MESSAGES:
        return {"id": "m", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": counts}
    said_item = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "i", "type": "message", "role": "assistant", "content": [said_item]}
    return {"id": "r", "status": "completed", "incomplete_details": None, "output": [item], "usage": counts}


def served(endpoint: str) -> Dialect:
    return next(one for one in dialects(ANY) if one.endpoint == endpoint)


def reading(endpoint: str, *, stream: bool, choices: int = 1) -> Reading:
    dialect = served(endpoint)
    body = {"model": "m", "stream": stream, **BODIES[endpoint], **({"n": choices} if choices > 1 else {})}
    return dialect.reading(dialect.read(body, 100), grant=GRANT)


def stream_of(*events: Event) -> list[bytes]:
    """Return the bytes of each event."""
    named = (b"event: %b\n" % one["type"].encode() if "type" in one else b"" for one in events)
    return [name + b"data: " + json.dumps(one).encode() + b"\n\n" for name, one in zip(named, events, strict=True)]


def words_in(shown: Any) -> int:
    """Return how many words are shown; of a response's stream only the deltas count, since its items repeat them."""
    text = shown if isinstance(shown, bytes) else json.dumps(shown).encode()
    return text.count(b'"delta":"' + WORD.encode()) if b"output_text.delta" in text else text.count(WORD.encode())


def counted(found: Reading, choices: int = 1) -> Count:
    return count_output(found.observed, choices * GRANT)


LENGTHS = {CHAT: '"length"', COMPLETIONS: '"length"', MESSAGES: '"max_tokens"', RESPONSES: '"incomplete"'}
"""The text by which a cut answer of each format says that it was cut."""


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("endpoint", FORMATS)
def test_a_stream_is_cut_at_its_grant(endpoint: str, at_once: bool) -> None:
    found = reading(endpoint, stream=True)
    raw = stream_of(*BEGINNINGS[endpoint], *(piece(endpoint) for _ in range(10)))

    deltas = b"".join(map(found.feed, [b"".join(raw)] if at_once else raw))
    end = found.ending(GRANT, None, None)

    assert words_in(deltas) == GRANT
    assert found.is_over()
    assert found.uses_whole_grant
    assert found.reasons == ["length"]
    assert LENGTHS[endpoint].encode() in deltas + end
    assert counted(found) == Count(GRANT, GRANT, "counted")


def beginning_with(word: str, number: int) -> list[Event]:
    """Return the events of a message's block whose first event has the whole text."""
    block = {"type": "text", "text": word}
    return [
        {"type": "content_block_start", "index": number, "content_block": block},
        {"type": "content_block_stop", "index": number},
    ]


@pytest.mark.parametrize("stream", [True, False])
def test_text_at_the_beginning_of_a_block_is_cut_at_the_grant(stream: bool) -> None:
    """Text in the first event of a block counts, not only its deltas."""
    found = reading(MESSAGES, stream=stream)
    events = [event for number in range(10) for event in beginning_with(WORD, number)]

    deltas = b"".join(map(found.feed, stream_of(BEGINNINGS[MESSAGES][0], *events)))

    assert words_in(deltas if stream else found.whole(GRANT)) == GRANT
    assert counted(found) == Count(GRANT, GRANT, "counted")


def test_items_that_only_the_end_of_a_response_has_are_cut_at_the_grant() -> None:
    """Some engines send no event for an item before the response is complete."""
    found = reading(RESPONSES, stream=True)
    items = [
        {"id": f"i{number}", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": WORD}]}
        for number in range(10)
    ]
    response = {"id": "r", "status": "completed", "output": items}

    deltas = b"".join(
        map(found.feed, stream_of(BEGINNINGS[RESPONSES][0], {"type": "response.completed", "response": response}))
    )

    assert words_in(deltas) == GRANT
    assert counted(found).billed_output_tokens == GRANT


@pytest.mark.parametrize("endpoint", FORMATS)
def test_a_caller_who_does_not_stream_has_no_more(endpoint: str) -> None:
    found = reading(endpoint, stream=False)
    for raw in stream_of(*BEGINNINGS[endpoint], *(piece(endpoint) for _ in range(10))):
        found.feed(raw)

    answer = found.whole(GRANT)

    assert words_in(answer) == GRANT
    assert LENGTHS[endpoint] in json.dumps(answer)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(("reported", "shown"), [(GRANT, 2), (GRANT + 1, 1)])
def test_text_beside_a_figure_beyond_the_grant_is_not_passed_on(endpoint: str, reported: int, shown: int) -> None:
    found = reading(endpoint, stream=True)
    usage = {"prompt_tokens": 1, "completion_tokens": reported}

    deltas = b"".join(map(found.feed, stream_of(piece(endpoint), piece(endpoint, usage=usage))))

    assert words_in(deltas) == shown
    assert found.is_over() == (reported > GRANT)


@pytest.mark.parametrize("endpoint", FORMATS)
@pytest.mark.parametrize(("reported", "words", "left"), [(GRANT, 8, 8), (GRANT + 1, 10, 8), (2 * GRANT, 8, 4)])
def test_a_whole_answer_is_cut_in_proportion(endpoint: str, reported: int, words: int, left: int) -> None:
    found = reading(endpoint, stream=False)
    found.feed_whole(whole(endpoint, reported, words))

    answer = found.whole(GRANT)

    assert words_in(answer) == left
    assert (LENGTHS[endpoint] in json.dumps(answer)) == (reported > GRANT)
    assert counted(found).billed_output_tokens == GRANT
    assert found.uses_whole_grant
    assert f'"{"completion_tokens" if endpoint in (CHAT, COMPLETIONS) else "output_tokens"}": {GRANT}' in json.dumps(
        answer
    )


@pytest.mark.parametrize("endpoint", FORMATS)
@pytest.mark.parametrize(
    ("reported", "words", "tokens", "source"),
    [(0, 5, 3, "estimate"), (0, 8, GRANT, "estimate"), (1, 8, 1, "upstream"), (1, 16, GRANT, "estimate")],
)
def test_a_whole_answer_without_a_believable_figure_is_estimated(
    endpoint: str, reported: int, words: int, tokens: int, source: str
) -> None:
    """Four characters count as a token; a figure is believed unless the text has over sixteen characters a token."""
    found = reading(endpoint, stream=False)

    found.feed_whole(whole(endpoint, reported, words))

    assert counted(found) == Count(tokens, tokens, source)


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_the_end_of_a_text_is_kept_as_far_as_a_resumption_may_repeat_it(at_once: bool) -> None:
    """No more of the text is kept, however long it is."""
    found, long = reading(CHAT, stream=True), "".join(chr(97 + number % 26) for number in range(5 * TAIL_CHARACTERS))
    pieces = [long[: 3 * TAIL_CHARACTERS], long[3 * TAIL_CHARACTERS :]]
    raw = stream_of(*({"id": "c", "choices": [{"index": 0, "delta": {"content": text}}]} for text in pieces))

    for data in [b"".join(raw)] if at_once else raw:
        found.feed(data)

    assert found.tails == [long[-2 * TAIL_CHARACTERS :]]


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_each_of_several_choices_has_a_grant_of_its_own(endpoint: str) -> None:
    found = reading(endpoint, stream=True, choices=2)
    pieces = [piece(endpoint, index) for index in [0] * 7 + [1] * 7]

    deltas = b"".join(map(found.feed, stream_of(*pieces[:7])))
    assert not found.is_over()
    deltas += b"".join(map(found.feed, stream_of(*pieces[7:])))

    assert words_in(deltas) == 2 * GRANT
    assert found.is_over()
    assert counted(found, 2) == Count(2 * GRANT, 2 * GRANT, "counted")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_a_choice_that_nobody_asked_for_is_not_passed_on(endpoint: str) -> None:
    found, at_once = reading(endpoint, stream=True, choices=2), reading(endpoint, stream=False, choices=2)
    deltas = b"".join(map(found.feed, stream_of(piece(endpoint, 0), piece(endpoint, 2), piece(endpoint, -1))))
    at_once.feed_whole(whole(endpoint, 3, 1, choices=3))

    assert words_in(deltas) == 1
    assert words_in(at_once.whole(2)) == 2


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_whole_choices_are_cut_where_all_of_them_are_over_all_grants(endpoint: str) -> None:
    kept, cut = (reading(endpoint, stream=False, choices=2) for _ in range(2))
    kept.feed_whole(whole(endpoint, 2 * GRANT, 5, choices=2))
    cut.feed_whole(whole(endpoint, 4 * GRANT, 8, choices=2))

    assert words_in(kept.whole(2 * GRANT)) == 10
    assert words_in(cut.whole(2 * GRANT)) == 8


@pytest.mark.parametrize("reported", [3, GRANT + 3, 50])
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_what_the_upstream_says_of_a_stream_after_its_cut_counts_what_nobody_has(endpoint: str, reported: int) -> None:
    """One choice is cut and the other goes on to its end: the figure covers both, and the discarded tokens."""
    found = reading(endpoint, stream=True, choices=2)
    for raw in stream_of(*(piece(endpoint, 0) for _ in range(GRANT + 1)), piece(endpoint, 1)):
        found.feed(raw)
    last = piece(endpoint, 1)["choices"][0] | {"finish_reason": "stop"}
    found.feed(stream_of({"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": reported}})[0])
    found.feed(stream_of({"id": "c", "choices": [last]})[0])

    assert found.is_over()
    assert counted(found, 2) == Count(GRANT + 2, GRANT + 2, "counted")


@pytest.mark.parametrize("endpoint", FORMATS)
def test_an_answer_within_its_grant_is_the_upstreams_own(endpoint: str) -> None:
    """Its text, its ending and its figure are unchanged."""
    found = reading(endpoint, stream=False)
    found.feed_whole(whole(endpoint, 3, 3))

    assert words_in(found.whole(3)) == 3
    assert found.reasons == ["stop"]
    assert not found.uses_whole_grant
    assert counted(found) == Count(3, 3, "upstream")


@pytest.mark.parametrize("endpoint", FORMATS)
def test_a_caller_is_shown_the_input_that_was_counted_here_before_the_upstreams(endpoint: str) -> None:
    found = reading(endpoint, stream=False)
    found.input_tokens = 7
    found.feed_whole(whole(endpoint, 3, 3))

    usage = found.whole(3)["usage"]

    assert usage["prompt_tokens" if endpoint in (CHAT, COMPLETIONS) else "input_tokens"] == 7
