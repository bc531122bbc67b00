"""There is one model: the forwarded requests of two tiers differ in the limit and in nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.serving.dialects.registry import dialects
from gateway.serving.upstream.profiles import PROFILES
from tests.loop.rig import rig

ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "response_format": {"type": "json_object"},
        "max_completion_tokens": 9_000,
        "max_tokens": 8_000,
        "n_predict": 7_000,
        "min_tokens": 5_000,
        "n": 2,
    },
    "/v1/completions": {"prompt": ["Hello", "Good-bye"], "n": 2, "max_tokens": 9_000, "ignore_eos": True},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 9_000, "num_predict": 8_000, "text": {"verbosity": "low"}},
    "/v1/messages": {
        "messages": [{"role": "user", "content": "Hello"}],
        "system": "Be kind.",
        "max_tokens": 9_000,
        "thinking": {"type": "enabled", "budget_tokens": 2_000},
    },
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/embeddings": {"input": ["Hello"], "dimensions": 4},
}
LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "n_predict", "num_predict", "min_tokens")
ALONE = {"x-request-id", "content-length", "host", "connection", "accept", "user-agent"}
"""Headers of the connection, and the call's own id."""


class Recorder:
    """An upstream that remembers each request, and refuses it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, str], bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        raw = b""
        while (message := await receive())["type"] == "http.request":
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if scope["method"] == "POST":
            self.sent.append((scope["path"], headers, raw))
        await send({"type": "http.response.start", "status": 422, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


@pytest.mark.parametrize("endpoint", ASKED)
def test_tiers_differ_upstream_in_the_limit_only(
    endpoint: str, valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """The upstream sees the same call of a customer with a small cap and of a customer with a large cap."""
    upstream = Recorder()
    with rig(valkey_url, sqlite_url, tmp_path, upstream=upstream, embedding_model="aligned-1-embedding") as loop:
        loop.tier("small", conversation_tokens_max=40)
        loop.tier("large", conversation_tokens_max=4_000)
        model = "aligned-1-embedding" if "embed" in endpoint else "aligned-1"
        for tier in ("small", "large"):
            sent = {**loop.customer(tier).headers, "cookie": "a=b", "x-forwarded-for": "203.0.113.9"}
            answer = httpx.post(loop.url + endpoint, json={"model": model, **ASKED[endpoint]}, headers=sent)
            assert answer.status_code == 422

    (path, headers, small), (other_path, other_headers, large) = upstream.sent
    assert path == other_path == endpoint
    assert {name: value for name, value in headers.items() if name not in ALONE} == {
        name: value for name, value in other_headers.items() if name not in ALONE
    }
    assert not {"authorization", "x-api-key", "cookie", "x-forwarded-for"} & headers.keys()
    less, more = json.loads(small), json.loads(large)
    grants = {(less.pop(name), more.pop(name)) for name in LIMITS if name in less}
    choices = {"/v1/chat/completions": 2, "/v1/completions": 4}.get(endpoint, 1)
    assert grants == ({(40 // choices, 4_000 // choices)} if "max" in str(ASKED[endpoint]) else set())
    thoughts = less.pop("thinking", None), more.pop("thinking", None)  # the small cap has no room for a thinking budget
    assert thoughts == (None, ASKED[endpoint].get("thinking"))
    assert json.dumps(less) == json.dumps(more)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(1, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(sorted(PROFILES)),
    st.dictionaries(st.sampled_from(["logit_bias", "metadata", "x", "stop"]), ANYTHING),
)
def test_what_is_forwarded_depends_on_the_tier_in_the_grant_only(profile: str, more: dict[str, Any]) -> None:
    """For every format and kind of upstream, exchanging one grant for another gives the other body, byte for byte."""
    for dialect in dialects(PROFILES[profile]):
        body = {"model": "m", **ASKED[dialect.endpoint], **more}
        if profile == "ollama":
            body = {name: value for name, value in body.items() if name != "n"} | (
                {"prompt": "Hello"} if "prompt" in body else {}
            )
        wanted = replace(dialect.read(body, 500), requested_tokens=None)
        first, second = (dialect.forward(body, wanted, grant=grant, model="m") for grant in (1_234_567, 7_654_321))
        assert first.replace(b"1234567", b"7654321") == second
        assert (first != second) == wanted.generates
