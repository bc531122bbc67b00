"""An upstream that over- or understates its usage is noticed: the house's tokenizer counts some answers again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.doctor import Verdict, judge_recount
from gateway.metrics.definitions import RECOUNTED
from gateway.serving.caller.exchange import Receive, Scope, Send
from tests.loop.rig import Rig, rig
from tests.waiting import until

WORDS = "one two three four five"


class Saying:
    """An upstream whose answers have five words, and which reports them as ``tokens`` tokens."""

    def __init__(self, tokens: int, thought: int = 0) -> None:
        details = {"completion_tokens_details": {"reasoning_tokens": thought}} if thought else {}
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens, **details}
        message = {"role": "assistant", "content": WORDS}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
        self._body = json.dumps(whole).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": self._body})


def counts(loop: Rig) -> dict[str, int]:
    lines = loop.admin.get("/metrics").text.splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith(RECOUNTED.name + "{")]
    return {name.split('"')[1]: int(value) for name, _, value in found}


def call(loop: Rig, stream: bool = False) -> None:
    who = loop.customer("open")
    body: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    assert httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=who.headers).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_picked_is_counted_beside_what_the_upstream_said(
    valkey_url: str, sqlite_url: str, tmp_path: Path, words: str, stream: bool
) -> None:
    with rig(valkey_url, sqlite_url, tmp_path, upstream=Saying(8), tokenizer=words, recount_share=1.0) as loop:
        loop.tier("open")
        call(loop, stream)
        until(lambda: counts(loop) == {"upstream": 8, "tokenizer": 5})


def test_what_was_thought_and_not_shown_is_compared_with_nothing(
    valkey_url: str, sqlite_url: str, tmp_path: Path, words: str
) -> None:
    with rig(valkey_url, sqlite_url, tmp_path, upstream=Saying(80, 75), tokenizer=words, recount_share=1.0) as loop:
        loop.tier("open")
        call(loop)
        assert counts(loop) == {}


def test_none_is_picked_where_the_share_is_none(valkey_url: str, sqlite_url: str, tmp_path: Path, words: str) -> None:
    with rig(valkey_url, sqlite_url, tmp_path, upstream=Saying(8), tokenizer=words, recount_share=0.0) as loop:
        loop.tier("open")
        call(loop)
        assert counts(loop) == {}


@pytest.mark.parametrize(
    ("reported", "counted", "verdict"),
    [
        (1_010, 1_000, Verdict.OK),
        (960, 1_000, Verdict.OK),
        (1_300, 1_000, Verdict.CHANGE),
        (700, 1_000, Verdict.CHANGE),
        (90, 30, None),
    ],
)
def test_the_doctor_says_how_far_they_are_apart(reported: int, counted: int, verdict: Verdict | None) -> None:
    found = judge_recount({(RECOUNTED.name, "upstream"): reported, (RECOUNTED.name, "tokenizer"): counted})
    assert (found and found.verdict) == verdict
