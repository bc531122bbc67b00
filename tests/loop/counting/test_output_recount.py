"""Output that the upstream does not count is counted by its tokenizer, else by the operator's, else by relayed text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import StartupError
from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.serving.tokenizer import read_tokenizer
from tests.loop.rig import Rig, rig
from tests.serving import body_of, outlived

PIECES = ("one two ", "three ", "four five six")
"""Six words in three chunks."""


class Silent:
    """An upstream that reports no usage, and whose tokenizer counts words on request."""

    def __init__(self, owner: str, *, tokenizes: bool = True, pieces: tuple[str, ...] = PIECES) -> None:
        self.requests: list[dict[str, Any]] = []
        self._owner = owner
        self._tokenizes = tokenizes
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await outlived(scope, receive, send):
            return
        raw = await body_of(receive)
        status, kind, body = 200, b"application/json", b""
        if scope["path"] == "/v1/models":
            body = json.dumps({"data": [{"id": "aligned-1", "owned_by": self._owner}]}).encode()
        elif scope["path"] == "/tokenize" and self._tokenizes:
            self.requests.append(json.loads(raw))
            text = self.requests[-1].get("prompt") or self.requests[-1].get("content")
            body = json.dumps({"tokens": text.split(), "count": len(text.split())}).encode()
        elif scope["path"] == "/v1/chat/completions":
            kind, body = b"text/event-stream", _events(self._pieces)
        else:
            status = 500
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _events(pieces: tuple[str, ...]) -> bytes:
    deltas: list[tuple[dict[str, Any], str | None]] = [({"content": piece}, None) for piece in pieces]
    chunks = [
        {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in [*deltas, ({}, "stop")]
    ]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


@contextmanager
def running(upstream: Silent, valkey_url: str, sqlite_url: str, tmp_path: Path, **settings: Any) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path, upstream=upstream, **settings) as loop:
        loop.tier("open")
        yield loop


def record_of_a_call(loop: Rig, *, stream: bool) -> dict[str, Any]:
    who = loop.customer("open")
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    answer = httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=who.headers)
    assert answer.status_code == 200
    [record] = loop.usage(who)
    return record


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("owner", "field"), [("vllm", "prompt"), ("sglang", "prompt"), ("llamacpp", "content")])
def test_the_upstream_is_asked_first(
    owner: str, field: str, stream: bool, valkey_url: str, sqlite_url: str, tmp_path: Path, words: str
) -> None:
    upstream = Silent(owner)
    with running(upstream, valkey_url, sqlite_url, tmp_path, tokenizer=words) as loop:
        record = record_of_a_call(loop, stream=stream)

    assert (record["output_tokens"], record["billed_output_tokens"], record["usage_source"]) == (6, 6, "tokenizer")
    assert (record["input_tokens"], record["input_source"]) == (1, "tokenizer")
    assert sorted(body[field] for body in upstream.requests) == ["Hello", "".join(PIECES)]


def test_what_is_left_of_bytes_is_no_token(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """A byte tokenizer makes three tokens of each U+FFFD, where the model made one or the rest of a character followed."""
    upstream = Silent("vllm", pieces=("one \ufffd", "\ufffd two", " \ufffd three"))
    with running(upstream, valkey_url, sqlite_url, tmp_path) as loop:
        record = record_of_a_call(loop, stream=True)

    assert (record["output_tokens"], record["usage_source"]) == (3, "tokenizer")


@pytest.mark.parametrize("tokenizes", [True, False])
def test_then_the_operators_own_tokenizer(
    tokenizes: bool, valkey_url: str, sqlite_url: str, tmp_path: Path, words: str
) -> None:
    """It counts for an upstream without a tokenizer, and for an upstream whose tokenizer fails."""
    upstream = Silent("nobody" if tokenizes else "vllm", tokenizes=tokenizes)
    with running(upstream, valkey_url, sqlite_url, tmp_path, tokenizer=words) as loop:
        record = record_of_a_call(loop, stream=True)

    assert (record["output_tokens"], record["usage_source"]) == (6, "tokenizer")
    assert (record["input_tokens"], record["input_source"]) == (1, "tokenizer")


def test_then_what_went_by(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    with running(Silent("vllm", tokenizes=False), valkey_url, sqlite_url, tmp_path) as loop:
        record = record_of_a_call(loop, stream=True)

    assert (record["output_tokens"], record["usage_source"]) == (5, "estimate"), "by 27 characters in three pieces"
    assert record["input_source"] == "estimate"


async def test_vocabularies_of_openai_are_known_by_name() -> None:
    assert await read_tokenizer("o200k_base").count("tiktoken is great!") == 6
    assert await read_tokenizer("o200k_base").count("half a pair: \ud800") is not None


@pytest.mark.parametrize("named", ["nowhere.json", "no_such_vocabulary"])
def test_a_tokenizer_that_is_none_is_one_sentence(named: str) -> None:
    with pytest.raises(StartupError) as refused:
        read_tokenizer(named)

    assert refused.value.exit_code == 2
    assert "TOKENCAP_TOKENIZER" in refused.value.message
