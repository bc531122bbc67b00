"""Deltas are assembled by one table: it says which fields grow, stay, are replaced, or begin a new item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.serving.dialects.answers.assembly import joined, take
from gateway.serving.dialects.answers.surrogates import Halves


def assembled(*deltas: dict[str, Any]) -> Any:
    """Return the assembled deltas, after asserting that their new parts assemble to the same."""
    whole: dict[str, Any] = {}
    lean: dict[str, Any] = {}
    again: dict[str, Any] = {}
    for delta in deltas:
        take(whole, delta)
        take(again, take(lean, delta, keeps=False))
    assert joined(again) == joined(whole), "a streaming caller gets the same"
    return joined(whole)


def call(**fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {"tool_calls": [{**fields, "function": function}]}


TABLE: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "texts grow": ([{"content": "ab"}, {"content": "ab"}], {"content": "abab"}),
    "reasoning grows": ([{"reasoning": "a"}, {"reasoning": "a", "content": "b"}], {"reasoning": "aa", "content": "b"}),
    "a later null is nothing": ([{"role": "assistant", "content": "a"}, {"role": None, "content": None}], {"role": "assistant", "content": "a"}),
    "nor is a later empty text": ([{"id": "x", "content": "a"}, {"id": "", "content": ""}], {"id": "x", "content": "a"}),
    "what was null or empty is filled": ([{"id": "", "role": None}, {"id": "x", "role": "assistant"}], {"id": "x", "role": "assistant"}),
    "a role, an id, a type stay": ([{"role": "a", "id": "x", "type": "t"}] * 2 + [{"role": "b", "id": "y", "type": "u"}], {"role": "a", "id": "x", "type": "t"}),
    "what nobody knows is replaced": ([{"severity": "safe"}, {"severity": "safe"}, {"severity": "low"}], {"severity": "low"}),
    "inside of objects too": ([{"filter": {"hate": {"severity": "safe"}}}] * 3, {"filter": {"hate": {"severity": "safe"}}}),
    "numbers are not added up": ([{"offset": 3}, {"offset": 5}], {"offset": 5}),
    "true replaces false": ([{"filtered": False}, {"filtered": True}], {"filtered": True}),
    "a list that is repeated stays": ([{"citations": ["a", "b"]}] * 2, {"citations": ["a", "b"]}),
    "a list that is repeated longer is that": ([{"citations": ["a"]}, {"citations": ["a", "b"]}], {"citations": ["a", "b"]}),
    "another list comes behind": ([{"citations": ["a"]}, {"citations": ["b"]}], {"citations": ["a", "b"]}),
    "log probabilities come behind, alike or not": ([{"token_ids": [5]}, {"token_ids": [5]}], {"token_ids": [5, 5]}),
    "sound grows, its id does not": ([{"audio": {"id": "x", "data": "aa"}}, {"audio": {"id": "x", "data": "bb"}}], {"audio": {"id": "x", "data": "aabb"}}),
    "parts of a content grow by their type": (
        [{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]}] * 2 + [{"content": "b"}, {"content": "c"}],
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "aa"}]}, {"type": "text", "text": "bc"}]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_table(case: str) -> None:
    deltas, wanted = TABLE[case]
    whole: dict[str, Any] = {}
    for delta in deltas:
        take(whole, delta)

    assert joined(whole) == wanted


FIRST = {"index": 0, "id": "a", "type": "function", "name": "f"}
CALLS = {
    "pieces of a call": [call(**FIRST, arguments=""), call(index=0, arguments="{}")],
    "a name in every piece": [call(**FIRST, arguments="{"), call(**FIRST, arguments="}")],
    "a name in pieces": [call(index=0, id="a", type="function", name=""), call(index=0, name="f"), call(index=0, arguments="{}")],
    "nulls in later pieces": [call(**FIRST, arguments="{"), call(index=0, id=None, type=None, name=None, arguments="}")],
    "empty ids in later pieces": [call(**FIRST, arguments="{"), call(index=0, id="", name="", arguments="}")],
    "a new id in every piece": [call(**FIRST, arguments="{"), call(index=0, id="b", arguments="}")],
    "an object in place of the list": [{"tool_calls": call(**FIRST, arguments="{")["tool_calls"][0]}, call(index=0, arguments="}")],
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_one_call_however_it_comes(case: str) -> None:
    whole = assembled(*CALLS[case])

    assert whole["tool_calls"] == [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]


SECOND = {"index": 0, "id": "b", "type": "function", "name": "f", "arguments": "{}"}
TWO_CALLS = {
    "another id under the same index": [call(**FIRST, arguments="{}"), call(**SECOND)],
    "no index": [call(id="a", type="function", name="f", arguments="{}"), call(**{**SECOND, "index": None})],
    "both in one chunk": [{"tool_calls": [*call(**FIRST, arguments="{}")["tool_calls"], *call(**SECOND)["tool_calls"]]}],
    "pieces in turn, known by their ids": [
        call(**FIRST, arguments="{"), call(**{**SECOND, "arguments": "{"}), call(**FIRST, arguments="}"), call(**{**SECOND, "arguments": "}"}),
    ],
    "indexes that are not used up": [call(**FIRST, arguments="{}"), call(**{**SECOND, "index": 1})],
}  # fmt: skip


@pytest.mark.parametrize("case", TWO_CALLS)
def test_two_calls_however_they_come(case: str) -> None:
    calls = assembled(*TWO_CALLS[case])["tool_calls"]

    assert [(one["index"], one["id"], one["function"]["arguments"]) for one in calls] == [
        (0, "a", "{}"),
        (1, "b", "{}"),
    ]


def test_a_call_without_an_id_that_names_itself_after_its_arguments_is_another() -> None:
    whole = assembled(
        call(index=0, id="", name="f", arguments='{"a": "}'),
        call(index=0, id="", name="f", arguments='{"}'),
        call(index=0, id="", name="f", arguments='{"a": 1}'),
        call(index=0, id="", name="g", arguments="{}"),
    )

    assert [one["function"] for one in whole["tool_calls"]] == [
        {"name": "f", "arguments": '{"a": "}{"}'},
        {"name": "f", "arguments": '{"a": 1}'},
        {"name": "g", "arguments": "{}"},
    ]


def test_items_of_reasoning_are_others_where_their_type_or_id_is() -> None:
    def detail(**fields: Any) -> dict[str, Any]:
        return {"reasoning_details": [{"index": 0, **fields}]}

    whole = assembled(
        detail(type="reasoning.text", text="a", signature=None),
        detail(type="reasoning.text", text="a", signature="s"),
        detail(type="reasoning.encrypted", id="x", data="d"),
        detail(type="reasoning.encrypted", id="y", data="e"),
    )

    assert whole["reasoning_details"] == [
        {"index": 0, "type": "reasoning.text", "text": "aa", "signature": "s"},
        {"index": 1, "type": "reasoning.encrypted", "id": "x", "data": "d"},
        {"index": 2, "type": "reasoning.encrypted", "id": "y", "data": "e"},
    ]


def test_a_long_answer_is_kept_in_pieces() -> None:
    """Appending to a text copies it each time: a megabyte in single tokens would copy gigabytes."""
    whole: dict[str, Any] = {}
    piece = "x" * 50
    for _ in range(200_000):
        take(whole, {"content": piece})

    assert list(whole["content"]) == [piece] * 200_000
    assert len(joined(whole)["content"]) == 10_000_000


HIGH, LOW, WHOLE, UNKNOWN = "\ud83d", "\ude00", "\U0001f600", "\ufffd"


def mended(*texts: str) -> list[str]:
    halves = Halves()
    events = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return [halves.joined(event)["choices"][0]["delta"]["content"] for event in events]


def test_half_a_character_is_held_back_until_the_other_is_here() -> None:
    assert mended("a" + HIGH, LOW + "b") == ["a", WHOLE + "b"]
    assert mended(HIGH, "", LOW) == ["", "", WHOLE]
    assert mended(HIGH, HIGH, LOW) == ["", UNKNOWN, WHOLE]
    assert mended(LOW, HIGH, "x") == [UNKNOWN, "", UNKNOWN + "x"]


def test_each_text_has_halves_of_its_own() -> None:
    halves = Halves()
    of = [
        {"choices": [{"index": index, "delta": {"content": text}}]} for index, text in ((0, HIGH), (1, HIGH), (0, LOW))
    ]

    joined = [halves.joined(event)["choices"][0]["delta"]["content"] for event in of]

    assert joined == ["", "", WHOLE]
    assert halves.held
    assert halves.replaced({"choices": [{"index": 0, "finish_reason": "stop"}]}) == []
    assert halves.replaced({"choices": [{"index": 1, "finish_reason": "stop"}]}) == [
        {"choices": [{"index": 1, "delta": {"content": UNKNOWN}}]}
    ]
    assert not halves.held


SHAPES: dict[str, Callable[[str], dict[str, Any]]] = {
    "a completion": lambda text: {"choices": [{"index": 0, "text": text}]},
    "a call's arguments": lambda text: {
        "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 1, "function": {"arguments": text}}]}}]
    },
    "a message": lambda text: {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    },
    "a response": lambda text: {"type": "response.output_text.delta", "output_index": 0, "delta": text},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_in_every_format_halves_are_joined(shape: str) -> None:
    halves = Halves()

    joined = [halves.joined(SHAPES[shape](text)) for text in ("a" + HIGH, LOW)]

    assert joined == [SHAPES[shape]("a"), SHAPES[shape](WHOLE)]


@pytest.mark.parametrize("shape", SHAPES)
def test_in_every_format_half_a_character_is_given_up_at_the_end(shape: str) -> None:
    halves = Halves()
    halves.joined(SHAPES[shape]("a" + HIGH))

    assert halves.replaced() == [SHAPES[shape](UNKNOWN)]
    assert not halves.held
