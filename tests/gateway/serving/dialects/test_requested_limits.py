"""The limits in a body are read strictly: the smallest holds, and no limit is mistaken for another."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import LIMIT_MOST, end_user, flag, least, named, positive, read_body
from gateway.serving.dialects.openai import check_best_of, shows_usage
from gateway.serving.dialects.registry import dialects
from gateway.serving.upstream.profiles import CHAT, PROFILES
from pricing.usage import END_USER_MOST

GRANT = 50


@pytest.mark.parametrize(
    ("value", "read"), [(None, None), (1, 1), (7, 7), (LIMIT_MOST, LIMIT_MOST)], ids=["null", "one", "seven", "most"]
)
def test_a_limit_is_a_whole_number_from_one(value: Any, read: int | None) -> None:
    assert positive({"n": value}, "n") == read
    assert positive({}, "n") is None


@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, "5", [5], {}, LIMIT_MOST + 1])
def test_whatever_else_it_may_be_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        positive({"n": value}, "n")
    assert refused.value.param == "n"


def test_a_limit_of_its_own_has_the_most_that_is_said() -> None:
    assert positive({"n": 16}, "n", 16) == 16
    with pytest.raises(BadRequest, match="at most 16"):
        positive({"n": 17}, "n", 16)


@pytest.mark.parametrize(
    ("body", "smallest"),
    [
        ({}, None),
        ({"a": 5}, 5),
        ({"a": 5, "b": 3}, 3),
        ({"a": 3, "b": 5}, 3),
        ({"a": None, "b": 4}, 4),
        ({"c": 1}, None),
    ],
)
def test_of_several_spellings_the_smallest_holds(body: dict[str, Any], smallest: int | None) -> None:
    assert least(body, "a", "b") == smallest


@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest):
        flag({"stream": value}, "stream")
    assert (flag({}, "stream"), flag({"stream": None}, "stream"), flag({"stream": True}, "stream")) == (
        False,
        False,
        True,
    )


@pytest.mark.parametrize(
    "name", ["u" * (END_USER_MOST + 1), "a\nb", "a\u2028b", "\ud800"], ids=["long", "line", "separator", "half"]
)
def test_an_end_users_name_that_no_record_has_room_for_is_its_digest(name: str) -> None:
    """Two long names that begin alike stay different."""
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    assert end_user({"user": name}, "user") == f"sha256:{digest}"


def test_an_end_users_name_is_kept_as_it_is_and_the_first_that_is_there_counts() -> None:
    longest = "ü" * END_USER_MOST

    assert end_user({"user": longest}, "user") == longest
    assert end_user({"safety_identifier": "s", "user": "u"}, "safety_identifier", "user") == "s"
    assert end_user({"safety_identifier": "", "user": "u"}, "safety_identifier", "user") == "u"
    assert end_user({"metadata": {"user_id": "m"}, "user_id": "no"}, "user_id", within="metadata") == "m"
    assert end_user({"metadata": None}, "user_id", within="metadata") is None
    with pytest.raises(BadRequest, match=r"metadata\.user_id"):
        end_user({"metadata": {"user_id": 7}}, "user_id", within="metadata")


@pytest.mark.parametrize("value", [None, 7, ["m"]])
def test_a_name_that_has_to_be_there_is_a_string(value: Any) -> None:
    with pytest.raises(BadRequest):
        named({"model": value}, "model")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_body_that_is_compressed_is_refused(encoding: str) -> None:
    with pytest.raises(BadRequest, match="content-encoding"):
        read_body(b"{}", encoding)
    assert read_body(b"{}", "identity") == read_body(b"{}", "") == read_body(b"{}", None) == {}


@pytest.mark.parametrize(
    ("body", "shows"),
    [
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": {}}, False),
        ({"stream": True}, False),
        ({"stream_options": None}, False),
    ],
)
def test_a_streams_usage_is_shown_to_who_asks_for_it(body: dict[str, Any], shows: bool) -> None:
    assert shows_usage(body) == shows


@pytest.mark.parametrize(
    "body", [{"stream_options": {}}, {"stream": False, "stream_options": {}}, {"stream": True, "stream_options": []}]
)
def test_options_of_a_stream_are_for_a_stream(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        shows_usage(body)
    assert refused.value.param == "stream_options"


@pytest.mark.parametrize(
    ("best_of", "choices", "is_sold"), [(1, 1, True), (3, 3, True), (2, 1, False), (None, 1, True)]
)
def test_answers_that_nobody_sees_are_not_sold(best_of: int | None, choices: int, is_sold: bool) -> None:
    if not is_sold:
        with pytest.raises(BadRequest, match="best_of"):
            check_best_of({"best_of": best_of}, choices)
    else:
        assert check_best_of({"best_of": best_of}, choices) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(("profile", "is_told"), [("any", True), ("vllm", True), ("llamacpp", True), ("openai", False)])
def test_an_engine_that_knows_a_callers_spelling_of_the_limit_is_told_the_grant_in_it(
    profile: str, is_told: bool
) -> None:
    """Without it, an engine that obeys only this field would have no limit; with it, OpenAI would refuse the call."""
    chat = next(one for one in dialects(PROFILES[profile]) if one.endpoint == CHAT)
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "n_predict": 9_000}

    sent = json.loads(chat.forward(body, chat.read(body, 100), grant=GRANT, model="m"))

    assert sent.get("n_predict") == (GRANT if is_told else None)
    assert sent["max_completion_tokens"] == GRANT
