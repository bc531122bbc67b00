"""The message, code, type and field of an upstream's refusal reach the caller, whatever their form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import (
    RouteNotFound,
    TokencapError,
    UpstreamErrorEvent,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamUnavailable,
)
from gateway.serving.upstream.client import Upstream
from gateway.serving.upstream.error_bodies import failure_within, is_error, retry_after_s
from gateway.serving.upstream.error_redaction import House
from tests.gateway.serving.clients import Make, client
from tests.gateway.serving.endpoint import endpoint, says


async def refusal(make: Make, status: int, body: Any) -> TokencapError:
    """Return the gateway's error for an answer with this status and body."""
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode()
    async with endpoint(says(head + raw)) as far, client(make, far) as transport:
        house = House.of([far.url], "sk-0123456789abcdefghijklmnop")
        upstream = Upstream(transport, first_token_s=20, idle_s=20, whole_s=20, house=house)
        with pytest.raises(TokencapError) as refused:
            async with upstream.request("/chat/completions", b"{}", "req_1", {}) as answer:
                await answer.whole()
        return refused.value


OPENAI = {
    "message": "Too long.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": OPENAI}, OPENAI),
        (
            {"object": "error", "message": "Too long.", "type": "BadRequestError", "param": None, "code": 400},
            {"message": "Too long.", "type": "BadRequestError", "param": None, "code": None},
        ),
        ({"error": "Too long."}, {"message": "Too long."}),
        ({"detail": "Too long."}, {"message": "Too long."}),
        (
            {
                "detail": [
                    {"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing", "input": "secret"}
                ]
            },
            {"message": "body.messages.0: Field required"},
        ),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "Too long."}},
            {"message": "Too long."},
        ),
        ({"title": "Bad Request", "detail": "Too long.", "status": 400}, {"message": "Too long."}),
        ({"error": {"message": ""}}, {"message": "The upstream refused the request with 400."}),
        ([1, 2], {"message": "The upstream refused the request with 400."}),
        (
            {"error": {**OPENAI, "param": "/srv/models/x", "code": "http://model:8000", "type": "vllm-gpu-3:8000"}},
            {"message": "Too long.", "type": "invalid_request_error", "param": None, "code": None},
        ),
        (
            {"error": {**OPENAI, "message": "At http://model:8000/v1 with sk-0123456789abcdefghijklmnop: too long."}},
            {"message": "At … with …: too long."},
        ),
    ],
)
async def test_what_is_said_of_a_refusal_is_told_without_the_house(
    make: Make, body: Any, expected: dict[str, Any]
) -> None:
    error = await refusal(make, 400, body)

    assert isinstance(error, UpstreamRefused)
    assert {name: error.body()["error"][name] for name in expected} == expected


@pytest.mark.parametrize("body", [{"detail": "Not Found"}, {"error": {"message": "Invalid URL (POST /v1/x)"}}, "", {}])
async def test_an_upstream_without_the_route_is_known_by_its_words(make: Make, body: Any) -> None:
    assert isinstance(await refusal(make, 404, body), RouteNotFound)


MODERATED = {"error": {"code": 403, "message": "Your input was flagged.", "metadata": {"reasons": ["violence"]}}}
KEPT: list[tuple[int, Any, dict[str, Any]]] = [
    (408, {"error": {"message": "Too slow.", "code": "request_timeout"}}, {"message": "Too slow.", "code": "request_timeout"}),
    (409, {"error": {"message": "Busy.", "type": "conflict_error"}}, {"message": "Busy.", "type": "conflict_error"}),
    (424, {"error": "Failed generation", "error_type": "generation"}, {"message": "Failed generation", "type": "generation"}),
    (400, {"error": {"message": "Invalid schema for function 'billing'."}}, {"message": "Invalid schema for function 'billing'."}),
    (451, {"detail": "Not in your country."}, {"message": "Not in your country."}),
    (403, MODERATED, {"message": "Your input was flagged."}),
    (403, {"error": {"message": "No.", "code": "content_policy_violation"}}, {"message": "No.", "code": "content_policy_violation"}),
    (400, {"error": {"message": {"detail": "Too long."}}}, {"message": "Too long."}),
    (400, {"detail": {"error": {"message": "Too long."}}}, {"message": "Too long."}),
    (400, {"error": {"message": {"detail": [{"loc": ["body", "n"], "msg": "Too many"}]}}}, {"message": "body.n: Too many"}),
    (400, {"error": "Bad Request", "message": "Too long."}, {"message": "Too long."}),
    (400, [{"error": {"code": 400, "message": "Too long.", "status": "INVALID_ARGUMENT"}}], {"message": "Too long."}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "expected"), KEPT)
async def test_what_a_caller_can_do_something_about_keeps_its_status(
    make: Make, status: int, body: Any, expected: dict[str, Any]
) -> None:
    error = await refusal(make, status, body)

    assert isinstance(error, UpstreamRefused)
    assert error.status == status
    assert {name: error.body()["error"][name] for name in expected} == expected


@pytest.mark.parametrize("status", [401, 402, 403, 407, 500, 502, 504])
async def test_what_is_between_the_house_and_its_upstream_is_not_told(make: Make, status: int) -> None:
    error = await refusal(make, status, {"error": {"message": "No access to aligned-1.", "code": "model_access"}})

    assert isinstance(error, UpstreamUnavailable)
    assert error.body() == UpstreamUnavailable("The upstream failed to answer.").body()


@pytest.mark.parametrize("status", [400, 403, 404])
@pytest.mark.parametrize(
    "error_body",
    [
        {"message": "Your credit balance is too low. Please go to Plans & Billing.", "type": "invalid_request_error"},
        {"message": "No.", "code": "billing_hard_limit_reached"},
        {"message": "This organization has been disabled; nothing was flagged."},
    ],
)
async def test_what_the_house_owes_is_not_told_whatever_status_it_has(make: Make, status: int, error_body: Any) -> None:
    assert isinstance(await refusal(make, status, {"error": error_body}), UpstreamUnavailable)
    assert isinstance(failure_within({"error": {**error_body, "status": status}}, House()), UpstreamUnavailable)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Overloaded", "Overloaded"),
        ("Server is at capacity.", "Server is at capacity."),
        ("Rate limit reached in organization org-a1b2c3d4e5: try again in 1.2s.", "Please try again in 2s."),
        ("You exceeded your current quota, check your plan and billing.", "The upstream is overloaded."),
        ("vllm:8000 is full", "The upstream is overloaded."),
    ],
)
async def test_an_overload_is_told_in_its_words_where_they_are_of_nothing_else(
    make: Make, message: str, expected: str
) -> None:
    error = await refusal(make, 429, {"error": {"message": message, "code": "rate_limit_exceeded"}})

    assert isinstance(error, UpstreamOverloaded)
    assert (error.status, error.code) == (503, "upstream_overloaded")
    assert error.message.endswith(expected)
    assert error.headers == {"retry-after": "1"}


NOW = 1_764_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "2.5"}, 3),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "Mon, 24 Nov 2025 16:00:30 GMT"}, 30),
        ({"retry-after": "Mon, 24 Nov 2025 15:00:00 GMT"}, 1),
        ({"retry-after": "1", "retry-after-ms": "2500"}, 3),
        ({"retry-after": "1e9"}, 86_400),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_when_to_come_again_is_read_however_it_is_written(headers: dict[str, str], seconds: int | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


async def test_an_error_in_a_200_is_what_it_says_it_is(make: Make) -> None:
    error = await refusal(make, 200, {"error": {"message": "http://model:8000 is down"}, "choices": [], "output": []})

    assert isinstance(error, UpstreamErrorEvent)
    failure = failure_within(error.event, House())
    assert isinstance(failure, UpstreamUnavailable)
    assert "model" not in failure.message


CONTEXT = {"code": "context_length_exceeded", "message": "Your input exceeds the context window."}
WITHIN: list[tuple[dict[str, Any], int, dict[str, Any]]] = [
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 503, {"type": "overloaded_error", "message": "Overloaded"}),
    ({"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}}, 503, {"type": "requests", "code": "rate_limit_exceeded", "message": "Slow down."}),
    ({"error": {"code": 429, "message": "Slow down."}, "choices": []}, 503, {"code": "upstream_overloaded", "message": "Slow down."}),
    ({"error": {"status": "RESOURCE_EXHAUSTED", "code": 429, "message": "Slow."}}, 503, {"message": "Slow."}),
    ({"id": "resp_1", "error": CONTEXT}, 400, CONTEXT),
    ({"type": "error", **CONTEXT}, 400, {"code": CONTEXT["code"], "message": CONTEXT["message"]}),
    ({"object": "error", "message": "Too long.", "type": "BadRequestError", "code": 400}, 400, {"type": "BadRequestError", "message": "Too long."}),
    ({"error": {"message": "It was filtered.", "code": "content_filter", "status": 400}}, 400, {"code": "content_filter"}),
    ({"error": {"message": "CUDA out of memory", "type": "server_error", "code": "server_error"}}, 502, {"type": "server_error", "code": "server_error", "message": "The upstream failed in the middle of its answer."}),
    ({"error": {"message": "Pay first.", "type": "insufficient_quota", "code": "insufficient_quota"}}, 502, {"type": "upstream_error", "code": "upstream_unavailable"}),
    ({"error": {"message": "Bad key.", "type": "authentication_error"}}, 502, {"type": "upstream_error", "code": "upstream_unavailable"}),
    ({"error": "boom"}, 502, {"code": "upstream_unavailable"}),
]  # fmt: skip


@pytest.mark.parametrize(("error_body", "status", "expected"), WITHIN)
def test_an_error_within_an_answer_keeps_what_it_is(
    error_body: dict[str, Any], status: int, expected: dict[str, Any]
) -> None:
    error = failure_within(error_body, House())

    assert error.status == status
    assert {name: error.body()["error"][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("error_body", "is_one"),
    [
        ({"error": {"message": "x"}}, True),
        ({"object": "error", "message": "x"}, True),
        ({"detail": "x"}, True),
        ({"message": "x"}, True),
        ({"error": None, "choices": []}, False),
        ({"choices": [], "message": "x"}, False),
        ({"type": "message_start", "message": {}}, False),
        ({"type": "response.created", "response": {}}, False),
    ],
)
def test_what_is_an_error_is_known(error_body: dict[str, Any], is_one: bool) -> None:
    assert is_error(error_body) == is_one
