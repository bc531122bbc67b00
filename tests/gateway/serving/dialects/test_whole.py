"""A whole answer keeps its original bytes, except for the members that the gateway changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.dialects.answers.whole_answer import with_original_bytes
from gateway.serving.json_codec import loads

NUMBERS = b'{"model": "up", "a": 1.0, "b": 1e5, "c": 0.10, "d": 12345678901234567890123, "x": "\\u00e9\\/"}'


def test_what_is_not_changed_is_the_same_to_the_byte() -> None:
    raw = b'\n {"id" : "a\\/b", "choices": [ {"x": 1.50} ],"model":"m"}\n'

    assert with_original_bytes(raw, loads(raw)) == raw


def test_a_member_that_was_changed_is_written_anew_in_its_place() -> None:
    answer = {**loads(NUMBERS), "model": "mine"}

    assert with_original_bytes(NUMBERS, answer) == NUMBERS.replace(b'"model": "up", ', b'"model":"mine",').replace(
        b", ", b","
    )


USAGE = b'{"prompt_tokens": 1, "details": {"text": "}\\"{"}}'
TWICE = b'{"choices": [{"model": "up", "usage": {}}], "text": "\\"model\\": \\"up\\"", "model" : "up", "usage":%b}'


@pytest.mark.parametrize(
    ("raw", "changed", "expected"),
    [
        (b'{"model": "up", "n": 1.0}', {"model": "mine"}, b'{"model":"mine", "n": 1.0}'),
        (b'{ "n": 1.0 , "model" : "u\\"p" }', {"model": 'm"'}, b'{ "n": 1.0 , "model":"m\\"" }'),
        (b'{"usage": %b, "n": 1.0}' % USAGE, {"usage": {"n": 1}}, b'{"usage":{"n":1}, "n": 1.0}'),
    ],
)
def test_around_a_member_that_was_changed_every_byte_stays(raw: bytes, changed: Any, expected: bytes) -> None:
    assert with_original_bytes(raw, {**loads(raw), **changed}) == expected


def test_what_only_looks_like_the_member_is_not_changed() -> None:
    raw = TWICE % USAGE
    answer = {**loads(raw), "model": "mine", "usage": {"n": 1}}

    assert loads(with_original_bytes(raw, answer)) == answer
    assert with_original_bytes(raw, answer).startswith(b'{"choices": [{"model": "up", "usage": {}}],')


def test_members_may_come_and_go_and_come_twice() -> None:
    raw = b'{"secret": 1, "model": "up", "model": "up", "n": [1.0]}'

    assert (
        with_original_bytes(raw, {"model": "mine", "n": [1], "usage": {}}) == b'{"model":"mine","n": [1.0],"usage":{}}'
    )


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": NaN}',
        b"[1]",
        b'{"a": 1e999}',
        b'{"a": "\\ud83d"}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"a": 1}',
        b"",
        b"{",
        b'{"a" 1}',
    ],
)
def test_what_is_no_object_of_strict_json_is_written_anew(raw: bytes) -> None:
    assert with_original_bytes(raw, {"a": 1}) == b'{"a":1}'
    assert with_original_bytes(raw, {}) == b"{}"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(answer_before=st.dictionaries(st.text(max_size=2), JSON), shown=st.dictionaries(st.text(max_size=2), JSON))
def test_whatever_it_is_the_caller_has_what_it_is_shown(answer_before: dict[str, Any], shown: dict[str, Any]) -> None:
    for answer in (shown, {**answer_before, **shown}):
        for raw in (
            json.dumps(answer_before).encode(),
            json.dumps(answer_before, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        ):
            assert loads(with_original_bytes(raw, answer)) == loads(json.dumps(answer).encode())
