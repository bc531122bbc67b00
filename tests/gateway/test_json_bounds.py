"""A text is counted without being parsed, and the count is that of who parses it, wherever the text is cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.json_bounds import DEPTH_MOST, FREE, PARTS_MOST, VALUES_MOST, Census, OutOfBounds, check

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\[]{}:,/é\n') | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text('b"\\:,{'), values, max_size=4),
    max_leaves=30,
)


def names_and_containers(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(names_and_containers, value.values()))
    return 1 + sum(map(names_and_containers, value)) if isinstance(value, list) else 0


def depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(depth, inside), default=0)


@given(values, st.booleans(), st.sampled_from((None, 1)), st.lists(st.integers(0, 400), max_size=6))
def test_what_is_counted_is_what_is_there(value: Any, in_ascii: bool, indent: int | None, places: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=in_ascii, indent=indent).encode()
    cuts = sorted({0, len(text), *(place for place in places if place < len(text))})
    census, deepest = Census(), 0
    for start, end in pairwise(cuts):
        census.take(text[start:end])
        deepest = max(deepest, census.deepest)

    assert census.parts == names_and_containers(value)
    assert deepest == depth(value)


def test_what_stands_in_strings_is_not_counted() -> None:
    census = Census()
    text = b'{"a":"%b","b":1}' % (b'\\"[{,:' * 2 * PARTS_MOST)

    check(text)
    census.take(text)

    assert (census.parts, census.values, census.deepest) == (3, 2, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"[" * (DEPTH_MOST + 1), "nested"),
        (b'{"a":' * (DEPTH_MOST + 1), "nested"),
        (b'{"a":"%b","b":%b' % (b"[" * FREE, b"[" * DEPTH_MOST), "nested"),
        (b"[" + b"{}," * PARTS_MOST, "names, objects and lists"),
        (b"{" + b'"":0,' * (PARTS_MOST + 1), "names, objects and lists"),
        (b"[" + b"0," * (VALUES_MOST + 1), "values"),
    ],
)
def test_what_is_out_of_bounds_is_told(text: bytes, sentence: str) -> None:
    with pytest.raises(OutOfBounds, match=sentence):
        check(text)
