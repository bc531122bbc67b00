"""Pieces of several uncounted tokens are estimated from the length of their new text."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.chat import Chat
from gateway.serving.meter import Count, count_output
from gateway.serving.upstream.profiles import ANY
from tests.house.files import ROOT, written_files

GRANT = 1_000
WORDS = "word " * 8
"""Forty characters."""


def reading(*deltas: dict[str, Any], stream: bool = True, usage: list[int] | None = None) -> Reading:
    """Return the reading of a chat completion after pieces with these deltas and running figures."""
    chat = Chat(ANY)
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    found = chat.reading(chat.read(body, 100), grant=GRANT)
    found.remember_texts()
    for number, delta in enumerate(deltas):
        chunk: dict[str, Any] = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        if usage is not None:
            chunk["usage"] = {"prompt_tokens": 1, "completion_tokens": usage[number]}
        found.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    return found


def counted(found: Reading) -> Count:
    return count_output(found.observed, GRANT)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("word ", 10, Count(10, 10, "counted")),
        ("words ", 10, Count(10, 10, "counted")),
        ("longer ", 10, Count(12, 12, "estimate")),
        (WORDS, 1, Count(9, 9, "estimate")),
        (WORDS, 10, Count(95, 95, "estimate")),
        (WORDS, 200, Count(GRANT, GRANT, "estimate")),
    ],
)
def test_a_piece_is_a_token_and_four_characters_beyond_six_are_another(
    text: str, pieces: int, expected: Count, stream: bool
) -> None:
    """The six are an average: a long word among short words is one token."""
    assert counted(reading(*[{"content": text}] * pieces, stream=stream)) == expected


def test_the_name_of_a_call_that_is_repeated_in_each_piece_is_counted_once() -> None:
    """llama-cpp-python repeats the name."""
    call = {"index": 0, "id": "call_a", "type": "function"}
    pieces = ['{"city": ', '"Par', "is", '"', "}"]
    deltas = [{"tool_calls": [{**call, "function": {"name": "get_weather", "arguments": one}}]} for one in pieces]
    found = reading(*deltas)

    assert counted(found) == Count(5, 5, "counted")
    assert found.texts == [["get_weather", *pieces]]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking"])
def test_what_was_thought_and_is_there_twice_is_counted_once(name: str) -> None:
    """OpenRouter sends reasoning both as text and in parts."""
    twice = {name: WORDS, "reasoning_details": [{"type": "reasoning.text", "text": WORDS, "signature": "x" * 999}]}
    found = reading(twice, {"reasoning_details": twice["reasoning_details"]})

    assert counted(found) == Count(19, 19, "estimate"), "80 characters in two pieces"
    assert found.texts == [[WORDS, WORDS]]


def test_what_is_no_text_has_no_length() -> None:
    """Sound and encrypted reasoning have no length."""
    sound = {"audio": {"id": "a", "data": "x" * 9_999, "transcript": "Yes"}}
    hidden = {"content": "Yes", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x" * 9_999}]}

    assert counted(reading(sound, hidden)) == Count(2, 2, "counted")


def test_a_running_figure_is_better_than_the_length() -> None:
    assert counted(reading({"content": WORDS}, {"content": WORDS}, usage=[8, 17])) == Count(17, 17, "continuous")
    assert counted(reading({"content": WORDS}, {"content": WORDS}, usage=[8, 9])) == Count(19, 19, "estimate")


PROSE, CODE = (
    "".join(path.read_text("utf-8") for path in written_files() if path.match(pattern))[:200_000]
    for pattern in ("**/README.md", "gateway/**/*.py")
)
LICENCE = (ROOT / "LICENSE").read_text("utf-8")
ANSWERS, TOKENS = 100, 200


def tokens_of(text: str) -> list[str]:
    """Return the tokens of a text by one of OpenAI's vocabularies."""
    from bpe_openai import get_encoding

    known, size = get_encoding("o200k_base"), 10_000
    parts = (known.encode_ordinary(text[place : place + size]) for place in range(0, len(text), size))
    return [known.decode_single_token_bytes(one).decode("utf-8", "replace") for part in parts for one in part]


def told_by_length(tokens: list[str], per_chunk: int, most: int) -> float:
    """Return the counted tokens of answers in chunks of ``per_chunk`` tokens, as a share of their true tokens."""
    chance, counted_tokens, true_tokens = random.Random(1), 0, 0
    size = max(most // per_chunk, 1) * per_chunk
    for _ in range(ANSWERS):
        place = chance.randrange(len(tokens) - size)
        pieces = ["".join(tokens[at : at + per_chunk]) for at in range(place, place + size, per_chunk)]
        counted_tokens += counted(reading(*({"content": piece} for piece in pieces))).output_tokens
        true_tokens += size
    return counted_tokens / true_tokens


@pytest.mark.parametrize("text", [PROSE, CODE, LICENCE], ids=["prose", "code", "licence"])
def test_how_far_the_length_is_from_a_tokenizers_count(text: str) -> None:
    """README.md has the figures for one token in each chunk of short answers, and for five and forty tokens."""
    tokens = tokens_of(text)

    assert 1 <= told_by_length(tokens, 1, 10) < 1.03
    assert 0.8 < told_by_length(tokens, 5, TOKENS) < 1.2
    assert 0.9 < told_by_length(tokens, 40, TOKENS) < 1.27
