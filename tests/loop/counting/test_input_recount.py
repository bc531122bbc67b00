"""Input that the upstream does not count, or counts as zero, is counted like output: by a tokenizer, else estimated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.serving.dialects.registry import dialects
from gateway.serving.upstream.profiles import PROFILES, MediaBounds
from tests.loop.rig import Rig, rig
from tests.serving import body_of, outlived

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, EMBEDDINGS, COUNT_TOKENS = "/v1/messages", "/v1/embeddings", "/v1/messages/count_tokens"
WORDS = "one two three four five six seven eight nine ten"
IMAGE = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]},
    COMPLETIONS: {"prompt": WORDS},
    RESPONSES: {"instructions": "one two", "input": [{"role": "user", "content": "three four five six"}]},
    MESSAGES: {"system": "one two", "messages": [{"role": "user", "content": "three four"}], "max_tokens": 9},
    EMBEDDINGS: {"input": ["one two three", "four"], "model": "aligned-1-embedding"},
}
TOKENS = {CHAT: 10, COMPLETIONS: 10, RESPONSES: 5, MESSAGES: 3, EMBEDDINGS: 3}
"""The number of words, where a line break between two texts is no space: the words around it count as one."""

ANSWERS: dict[str, dict[str, Any]] = {
    CHAT: {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]},
    COMPLETIONS: {"choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]},
    RESPONSES: {
        "id": "resp_1",
        "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}],
    },
    MESSAGES: {"id": "msg_1", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"},
    EMBEDDINGS: {"data": [{"embedding": [0.5], "index": 0}]},
}
UNREPORTED = {
    "missing": None,
    "zero": 0,
    "negative": -3,
    "text": "12",
    "a fraction": 1.5,
    "huge": 2**60,
    "a truth": True,
}


class Lying:
    """An upstream that answers whole, with the input count that a test sets."""

    def __init__(self) -> None:
        self.input: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await outlived(scope, receive, send):
            return
        await body_of(receive)
        path = scope["path"]
        output_name, read = ("output_tokens", "input_tokens") if path in (RESPONSES, MESSAGES) else _OPENAI
        usage = {output_name: 1} | ({} if self.input is None else {read: self.input})
        answer = {**ANSWERS.get(path, {}), "usage": usage}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


_OPENAI = ("completion_tokens", "prompt_tokens")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ``tokenizer.json`` that makes a token of each word."""
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Split(" ", "removed")
    path = str(tmp_path_factory.mktemp("words") / "tokenizer.json")
    tokenizer.save(path)
    return path


@pytest.fixture(scope="module")
def lying() -> Lying:
    return Lying()


@pytest.fixture
def upstream(lying: Lying) -> Lying:
    """The upstream that all tests share; it reports no input until a test sets a count."""
    lying.input = None
    return lying


@pytest.fixture(scope="module")
def shared_loop(shared: tuple[str, str, Path], words: str, lying: Lying) -> Iterator[Rig]:
    names = {"embedding_model": "aligned-1-embedding", "upstream_profile": "any"}
    with rig(*shared, upstream=lying, tokenizer=words, **names) as running:
        running.tier("open", input_nanousd_per_mtok=1_000_000)
        yield running


@pytest.fixture
def loop(shared_loop: Rig, upstream: Lying) -> Rig:
    """The loop that all tests share, each with a customer of its own."""
    return shared_loop


def record_of(loop: Rig, path: str, *, stream: bool = False, **more: Any) -> tuple[dict[str, Any], httpx.Response]:
    who = loop.customer("open")
    body = {"model": "aligned-1", "stream": stream, **ASKED[path], **more}
    answer = httpx.post(loop.url + path, json=body, headers=who.headers, timeout=30)
    assert answer.status_code == 200, answer.text
    [record] = loop.usage(who)
    return record, answer


@pytest.mark.parametrize("kind", UNREPORTED)
@pytest.mark.parametrize("path", ASKED)
def test_input_that_is_not_counted_is_counted_here(loop: Rig, upstream: Lying, path: str, kind: str) -> None:
    """This holds in every format, and the answer shows the caller the billed count."""
    upstream.input = UNREPORTED[kind]
    record, answer = record_of(loop, path)

    assert (record["input_tokens"], record["input_source"]) == (TOKENS[path], "tokenizer")
    if path != EMBEDDINGS:
        shown = answer.json()["usage"]
        assert shown.get("prompt_tokens", shown.get("input_tokens")) == TOKENS[path]
        assert record["charge_nanousd"] == TOKENS[path]


@pytest.mark.parametrize("path", ASKED)
def test_input_that_the_upstream_counts_is_as_it_says(loop: Rig, upstream: Lying, path: str) -> None:
    upstream.input = 7
    record, _ = record_of(loop, path)

    assert (record["input_tokens"], record["input_source"]) == (7, "upstream")


@pytest.mark.parametrize("path", ASKED)
def test_input_is_what_the_upstream_says_whatever_was_held(loop: Rig, upstream: Lying, path: str) -> None:
    """Templates, pictures and earlier answers count too: the record has the count of the answer's usage."""
    upstream.input = 50_000
    record, answer = record_of(loop, path)

    assert (record["input_tokens"], record["input_source"]) == (50_000, "upstream")
    assert b"50000" in answer.content
    if path != EMBEDDINGS:
        assert record["charge_nanousd"] == 50_000


@pytest.mark.parametrize("path", ASKED)
def test_a_spend_limit_holds_whatever_input_the_upstream_says(loop: Rig, upstream: Lying, path: str) -> None:
    upstream.input = 50_000
    loop.tier("bounded", input_nanousd_per_mtok=1_000_000, spend_nanousd_max=1_000)
    who = loop.customer("bounded")
    answer = httpx.post(loop.url + path, json={"model": "aligned-1", **ASKED[path]}, headers=who.headers, timeout=30)
    [record] = loop.usage(who)

    assert record["input_tokens"] == 50_000
    assert record["charge_nanousd"] <= len(answer.request.content)
    assert loop.account(who)["spend"]["remaining_nanousd"] >= 0


@pytest.mark.parametrize("path", ASKED)
def test_input_that_no_model_can_have_read_is_as_good_as_unsaid(loop: Rig, upstream: Lying, path: str) -> None:
    upstream.input = 10**9
    record, _ = record_of(loop, path)

    assert (record["input_tokens"], record["input_source"]) == (TOKENS[path], "tokenizer")


NOT_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "an image": (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "one"}, IMAGE]}]}),
    "an answer that is kept elsewhere": (RESPONSES, {"conversation": "talk"}),
    "a picture in a message": (
        MESSAGES,
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}]},
    ),
}


@pytest.mark.parametrize("name", NOT_TEXT)
def test_input_that_is_not_all_text_is_a_quarter_of_the_bodys_bytes(loop: Rig, upstream: Lying, name: str) -> None:
    """No tokenizer can count the rest. An upstream's count of zero is not believed here either."""
    path, more = NOT_TEXT[name]
    for upstream.input in (None, 0):
        record, answer = record_of(loop, path, **more)

        most = len(answer.request.content) + (MediaBounds().image_tokens_max if path != RESPONSES else 0)
        assert (record["input_tokens"], record["input_source"]) == (-(-most // 4), "estimate")


def test_input_that_comes_in_tokens_needs_no_tokenizer(loop: Rig) -> None:
    record, _ = record_of(loop, COMPLETIONS, prompt=[5, 6, 7])
    assert (record["input_tokens"], record["input_source"]) == (3, "tokenizer")
    record, _ = record_of(loop, EMBEDDINGS, input=[[5, 6], [7, 8]])
    assert (record["input_tokens"], record["input_source"]) == (4, "tokenizer")


def test_tools_are_input_too(loop: Rig) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "a b c"}}]
    record, _ = record_of(loop, CHAT, tools=tools)

    assert record["input_tokens"] > TOKENS[CHAT]
    assert record["input_source"] == "tokenizer"


def test_without_a_tokenizer_it_is_a_quarter_of_the_bodys_bytes(
    valkey_url: str, sqlite_url: str, tmp_path: Path, upstream: Lying
) -> None:
    with rig(valkey_url, sqlite_url, tmp_path, upstream=upstream, upstream_profile="any") as loop:
        loop.tier("open")
        for upstream.input in (None, 0):
            record, answer = record_of(loop, CHAT)
            estimate = -(-len(answer.request.content) // 4)
            assert (record["input_tokens"], record["input_source"]) == (estimate, "estimate")


@pytest.mark.parametrize("deep", [63, 100])
def test_a_prompt_nested_beyond_reason_is_not_followed_to_its_end(deep: int) -> None:
    content: Any = "one"
    for _ in range(deep):
        content = [content]
    for dialect in dialects(PROFILES["any"]):
        body = {**ASKED.get(dialect.endpoint, ASKED[MESSAGES])}
        field = next(name for name in ("messages", "prompt", "input") if name in body)
        found = dialect.prompt({**body, field: content})
        assert (found is None) == (deep == 100 or dialect.endpoint == COUNT_TOKENS)
