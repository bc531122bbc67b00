"""Bad input gets the refusal that the contract names, in one sentence; nothing reaches the upstream, nothing is held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, rig

GOOD: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"

BAD: dict[str, tuple[bytes, int, str, str | None]] = {
    "malformed JSON": (b'{"model": "aligned-1",', 400, "invalid_json", None),
    "not an object": (b"[]", 400, "invalid_json", None),
    "not UTF-8": (b'{"model": "\xff"}', 400, "invalid_json", None),
    "NaN": (b'{"model": "aligned-1", "messages": [{}], "temperature": NaN}', 400, "invalid_json", None),
    "nested too deeply": (b"[" * 100_000, 400, "invalid_json", None),
    "a duplicate key": (b'{"max_tokens": 1, "max_tokens": 10000}', 400, "duplicate_key", "max_tokens"),
    "a duplicate key inside": (b'{"messages": [{"role": "user", "role": "tool"}]}', 400, "duplicate_key", "role"),
    "no messages": (json.dumps({"model": "aligned-1"}).encode(), 400, "invalid_type", "messages"),
}
LIMITS = [0, -1, "500", 1.5, True, [], {}, 1e18]


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share; none of them makes a call that is served."""
    with rig(*shared) as running:
        running.tier("open", period_tokens_max=1_000_000)
        yield running


@pytest.fixture
def who(loop: Rig) -> dict[str, str]:
    return loop.customer("open").headers


def refused(loop: Rig, answer: httpx.Response, status: int, code: str, param: str | None) -> None:
    """Assert that the answer is one refusal in the OpenAI shape, and that the call cost nothing."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"]
    assert error["message"].strip()
    assert answer.headers["x-request-id"]
    assert loop.counted()["calls"] == 0
    assert loop.open_holds() == 0


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body(loop: Rig, who: dict[str, str], name: str) -> None:
    raw, status, code, param = BAD[name]
    answer = httpx.post(loop.url + CHAT, content=raw, headers=who)

    refused(loop, answer, status, code, param)


def test_a_limit_that_is_not_a_positive_integer(loop: Rig, who: dict[str, str]) -> None:
    """A limit is refused under each of its names; 1e18 is not an integer in JSON."""
    for field in ("max_tokens", "max_completion_tokens", "n", "n_predict"):
        for value in LIMITS:
            answer = httpx.post(loop.url + CHAT, json={**GOOD, field: value}, headers=who)

            code = (
                "invalid_type" if not isinstance(value, int) or isinstance(value, bool) else "integer_below_min_value"
            )
            refused(loop, answer, 400, code, field)


def test_a_limit_beyond_what_a_record_can_say(loop: Rig, who: dict[str, str]) -> None:
    """An answer too long for any usage record could not be charged."""
    answer = httpx.post(loop.url + CHAT, json={**GOOD, "max_tokens": 2**53}, headers=who)

    refused(loop, answer, 400, "integer_above_max_value", "max_tokens")


def test_more_choices_than_sixteen(loop: Rig, who: dict[str, str]) -> None:
    answer = httpx.post(loop.url + CHAT, json={**GOOD, "n": 17}, headers=who)

    refused(loop, answer, 400, "integer_above_max_value", "n")


def test_an_unknown_model(loop: Rig, who: dict[str, str]) -> None:
    answer = httpx.post(loop.url + CHAT, json={**GOOD, "model": "gpt-9"}, headers=who)

    refused(loop, answer, 404, "model_not_found", "model")


def test_a_missing_or_unknown_key(loop: Rig) -> None:
    for headers in ({}, {"authorization": "Bearer sk-123"}, {"authorization": "Bearer tc-00-" + "x" * 43}):
        answer = httpx.post(loop.url + CHAT, json=GOOD, headers=headers)

        refused(loop, answer, 401, "invalid_api_key", None)


def test_a_body_of_20_mb(loop: Rig, who: dict[str, str]) -> None:
    answer = httpx.post(loop.url + CHAT, content=b" " * 20 * 2**20, headers=who, timeout=30)

    refused(loop, answer, 413, "request_too_large", None)


def test_an_unknown_route_or_method(loop: Rig, who: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/v1/audio/speech"),
        ("GET", CHAT),
        ("POST", CHAT + "/"),
        ("POST", "/v1/Chat/completions"),
        ("DELETE", "/v1/models"),
    ):
        answer = httpx.request(method, loop.url + path, headers=who)

        refused(loop, answer, 404, "not_found", None)


def test_a_conversation_id_of_other_characters(loop: Rig, who: dict[str, str]) -> None:
    for name in ("", "a b", "a" * 129, "ä"):
        headers = {**who, "x-conversation-id": name.encode("latin-1")}
        answer = httpx.post(loop.url + CHAT, json=GOOD, headers=headers)

        refused(loop, answer, 400, "invalid_request", "X-Conversation-Id")


def test_a_compressed_body(loop: Rig, who: dict[str, str]) -> None:
    answer = httpx.post(loop.url + CHAT, content=b"x", headers={**who, "content-encoding": "gzip"})

    refused(loop, answer, 400, "invalid_request", "content-encoding")
