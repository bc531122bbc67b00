"""A refusal of the upstream's own: its words, code, type and field reach the caller, whatever shape they came in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import RouteNotFound, TokencapError, UpstreamRefused, UpstreamUnavailable
from gateway.serving.discretion import House
from gateway.serving.upstream import Upstream
from tests.gateway.serving.clients import Make, client
from tests.gateway.serving.endpoint import endpoint, says


async def refusal(make: Make, status: int, body: Any) -> TokencapError:
    """Return what becomes of an answer with this status and body."""
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode()
    async with endpoint(says(head + raw)) as far, client(make, far) as transport:
        house = House.of([far.url], "sk-0123456789abcdefghijklmnop")
        upstream = Upstream(transport, first_token_s=20, idle_s=20, whole_s=20, house=house)
        with pytest.raises(TokencapError) as refused:
            async with upstream.ask("/chat/completions", b"{}", "req_1", {}) as answer:
                await answer.whole()
        return refused.value


OPENAI = {
    "message": "Too long.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}


@pytest.mark.parametrize(
    ("body", "told"),
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
async def test_what_is_said_of_a_refusal_is_told_without_the_house(make: Make, body: Any, told: dict[str, Any]) -> None:
    error = await refusal(make, 400, body)

    assert isinstance(error, UpstreamRefused)
    assert {name: error.body()["error"][name] for name in told} == told


@pytest.mark.parametrize("body", [{"detail": "Not Found"}, {"error": {"message": "Invalid URL (POST /v1/x)"}}, "", {}])
async def test_an_upstream_without_the_route_is_known_by_its_words(make: Make, body: Any) -> None:
    assert isinstance(await refusal(make, 404, body), RouteNotFound)


async def test_an_error_in_a_200_is_no_answer(make: Make) -> None:
    """What it says is not for the caller."""
    error = await refusal(make, 200, {"error": {"message": "http://model:8000 is down"}, "choices": [], "output": []})

    assert isinstance(error, UpstreamUnavailable)
    assert error.message == "The upstream failed to answer."
