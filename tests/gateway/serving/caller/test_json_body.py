"""A body is read like by the json module, but without duplicate names and without numbers that JSON does not have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import read_body

WRITTEN = '{"model":"a","n":1,"x":[1.5e3,-0,null,true,{"k":"\\u00e9\\n"}],"s":"\\ud83d\\ude00","t":0.7,"\\u0075":{}}'
SIGNS = '{}[],:"\\u0123456789.eE+-truefalsn \t\n\r\x00é\u2028NaInity'

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=20,
)
changes = st.tuples(st.sampled_from(("put", "cut", "in")), st.integers(0, len(WRITTEN) - 5), st.sampled_from(SIGNS))


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def no_number(name: str) -> Any:
    raise ValueError(name)


def read_slowly(text: str) -> str:
    """Return the repr of the object in a text, or an empty string if the text is no object of strict JSON."""
    try:
        found = json.JSONDecoder(object_pairs_hook=once_each, parse_constant=no_number).decode(text)
    except ValueError:
        return ""
    return repr(found) if isinstance(found, dict) else ""


def read(text: str) -> str:
    try:
        return repr(read_body(text.encode(), None))
    except BadRequest:
        return ""


@given(st.dictionaries(st.text(), values), st.booleans())
def test_whatever_is_written_as_json_is_read_as_it_was_meant(body: dict[str, Any], in_ascii: bool) -> None:
    assert read_body(json.dumps(body, ensure_ascii=in_ascii).encode(), None) == body


@given(st.lists(changes, min_size=1, max_size=3))
def test_a_text_that_is_nearly_json_is_read_or_refused_as_strictly_as_by_the_json_module(
    done: list[tuple[str, int, str]],
) -> None:
    signs = list(WRITTEN)
    for kind, place, sign in done:
        signs[place : place + (kind != "in")] = [] if kind == "cut" else [sign]

    text = "".join(signs)

    assert read(text) == read_slowly(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": [{"b": 1, "\\u0062": 2}]}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1} {}',
        '{"a": ' + "1" * 5_000 + "}",
    ],
)
def test_what_parsers_disagree_on_is_refused(text: str) -> None:
    assert read(text) == read_slowly(text) == ""


def test_half_a_surrogate_pair_is_read_all_the_same() -> None:
    assert read_body(b'{"a": "\\ud800"}', None) == {"a": "\ud800"}
