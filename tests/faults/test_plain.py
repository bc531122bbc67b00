"""Embeddings and token counts generate nothing; their endings, errors and records are like those of any call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serving.caller.exchange import Receive, Scope, Send
from tests.loop.rig import Rig, Sold, rig
from tests.servers import short_directory, valkey_in
from tests.serving import body_of, outlived, served
from tests.waiting import until

EMBEDDINGS, COUNT_TOKENS = "/v1/embeddings", "/v1/messages/count_tokens"
ASKED: dict[str, dict[str, Any]] = {
    EMBEDDINGS: {"model": "aligned-1-embedding", "input": ["one", "two"], "dimensions": 2, "encoding_format": "float"},
    COUNT_TOKENS: {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "system": "Be kind."},
}
ANSWERS: dict[str, dict[str, Any]] = {
    EMBEDDINGS: {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": [0.5, 0.25]} for index in range(2)],
        "model": "upstream-name",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    },
    COUNT_TOKENS: {"input_tokens": 12},
}
BILLED = {EMBEDDINGS: (4, "upstream"), COUNT_TOKENS: (0, None)}
"""Input tokens, and the source of their count: a token count itself is billed nothing."""
DEADLINE_S = 1.0
GIVEN_UP_S = 60.0
both = pytest.mark.parametrize("path", ASKED, ids=["embeddings", "count_tokens"])


class Plain:
    """An upstream of both routes, whose fault a test sets."""

    def __init__(self) -> None:
        self.fault = ""
        self.sent: list[dict[str, Any]] = []
        self.live = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await outlived(scope, receive, send):
            return
        raw = await body_of(receive)
        if scope["path"] not in ANSWERS:
            await self._say(send, 404, b"")
            return
        self.sent.append(json.loads(raw))
        self.live += 1
        try:
            await self._answer(scope["path"], receive, send)
        finally:
            self.live -= 1

    async def _answer(self, path: str, receive: Receive, send: Send) -> None:
        whole = json.dumps(ANSWERS[path]).encode()
        match self.fault:
            case "":
                await self._say(send, 200, whole)
            case "hang before head":
                await _until_left(receive)
            case "hang":
                await self._say(send, 200, whole[:9], more=True)
                await _until_left(receive)
            case "cut":
                await self._say(send, 200, whole[:9], more=True, length=len(whole))
            case "not json":
                await self._say(send, 200, b"{broken")
            case "a list":
                await self._say(send, 200, b"[]")
            case "a stream":
                await self._say(send, 200, b"data: " + whole + b"\n\n", kind=b"text/event-stream")
            case status:
                error = {"error": {"message": "No.", "type": "x", "param": None, "code": "because"}}
                await self._say(send, int(status), json.dumps(error).encode())

    async def _say(
        self,
        send: Send,
        status: int,
        body: bytes,
        *,
        more: bool = False,
        length: int | None = None,
        kind: bytes = b"application/json",
    ) -> None:
        headers = [(b"content-type", kind)] + ([] if length is None else [(b"content-length", b"%d" % length)])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _until_left(receive: Receive) -> None:
    async with asyncio.timeout(GIVEN_UP_S):
        while (await receive())["type"] != "http.disconnect":
            pass


UPSTREAM = Plain()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("plain")
    parameters: dict[str, Any] = {
        "embedding_model": "aligned-1-embedding",
        "upstream_profile": "any",
        "first_token_deadline_s": DEADLINE_S,
        "idle_deadline_s": DEADLINE_S,
    }
    with (
        short_directory() as short,
        valkey_in(short) as redis_url,
        rig(
            redis_url, f"sqlite:///{directory / 'ledger.sqlite'}", directory, upstream=UPSTREAM, **parameters
        ) as running,
    ):
        running.tier("open", price_nanousd=7, input_nanousd_per_mtok=1_000_000)
        running.tier("gone", period_tokens_max=0, price_nanousd=7)
        running.tier("short", conversation_input_tokens_max=5)
        running.tier("slow", requests_per_minute=1)
        yield running


@pytest.fixture
def upstream() -> Plain:
    UPSTREAM.fault = ""
    UPSTREAM.sent.clear()
    return UPSTREAM


def call(loop: Rig, who: Sold, path: str, headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
    request = {**ASKED[path], **parameters}
    return httpx.post(loop.url + path, json=request, headers={**who.headers, **(headers or {})}, timeout=30)


def records(loop: Rig, who: Sold) -> list[dict[str, Any]]:
    """Return a customer's records once no call is in flight."""
    until(lambda: UPSTREAM.live == 0)
    loop.until_nothing_is_held()
    return loop.usage(who)


def code_of(path: str, answer: httpx.Response) -> Any:
    """Return the code of an error, after asserting that the error has the shape of the format."""
    error = answer.json()
    assert (error.get("type") == "error") == (path == COUNT_TOKENS)
    assert error["error"]["message"]
    return error["error"]["code"]


@both
def test_an_answer_is_passed_on_and_is_one_record(loop: Rig, upstream: Plain, path: str) -> None:
    """The answer has the caller's name of the model; nothing can be capped, and only input is charged, at its rate."""
    who = loop.customer("open")
    answer = call(loop, who, path)

    assert answer.status_code == 200
    model = {"model": ASKED[path]["model"]} if path == EMBEDDINGS else {}
    assert answer.json() == {**ANSWERS[path], **model}
    assert upstream.sent == [ASKED[path]]
    owed = BILLED[path][0]
    assert (answer.headers["x-tokencap-cap"], answer.headers["x-tokencap-charge-nanousd"]) == ("0", str(owed))
    (record,) = records(loop, who)
    assert record["id"] == answer.headers["x-request-id"]
    assert (record["input_tokens"], record.get("input_source")) == BILLED[path]
    outcome = {
        name: record[name]
        for name in ("endpoint", "finish", "stream", "choices", "requested_tokens", "ttft_ms", "kind")
    }
    assert outcome == {
        **{"endpoint": path, "finish": "complete", "stream": False, "choices": 1},
        **{"requested_tokens": None, "ttft_ms": None, "kind": "usage"},
    }
    counts = ("output_tokens", "billed_output_tokens", "reasoning_tokens", "cap_tokens")
    assert [record[name] for name in counts] == [0] * 4
    assert record["charge_nanousd"] == owed
    assert loop.account(who)["spend"]["used_nanousd"] == owed


@both
def test_limits_and_unknown_fields_stay_here(loop: Rig, upstream: Plain, path: str) -> None:
    """These endpoints have no output to limit: no field that limits it reaches the model, nor does ``stream``."""
    who = loop.customer("open")
    more = {"max_tokens": 5, "n_predict": 9, "n": 2, "stream": True, "stream_options": {}, "extra_body": {"n": 3}}
    answer = call(loop, who, path, **more)

    assert answer.headers["content-type"] == "application/json"
    assert upstream.sent == [ASKED[path]]


UNANSWERED = {
    "500": (502, "upstream_unavailable"),
    "401": (502, "upstream_unavailable"),
    "429": (503, "upstream_overloaded"),
    "529": (503, "upstream_overloaded"),
    "422": (422, "because"),
    "404": (404, "because"),
    "405": (404, "not_found"),
    "hang before head": (504, "upstream_timeout"),
}


@pytest.mark.parametrize("fault", UNANSWERED)
@both
def test_a_call_that_the_upstream_did_not_answer_has_no_record(
    loop: Rig, upstream: Plain, path: str, fault: str
) -> None:
    who = loop.customer("open")
    upstream.fault = fault
    answer = call(loop, who, path)

    assert (answer.status_code, code_of(path, answer)) == UNANSWERED[fault]
    assert records(loop, who) == []


BROKEN = {"hang": 504, "cut": 502, "not json": 502, "a list": 502, "a stream": 502}


@pytest.mark.parametrize("fault", BROKEN)
@both
def test_an_answer_that_breaks_off_is_recorded_as_that(loop: Rig, upstream: Plain, path: str, fault: str) -> None:
    who = loop.customer("open")
    upstream.fault = fault
    answer = call(loop, who, path)

    assert (answer.status_code, code_of(path, answer)) == (
        BROKEN[fault],
        "upstream_timeout" if fault == "hang" else "upstream_unavailable",
    )
    (record,) = records(loop, who)
    outcome = [record[name] for name in ("finish", "output_tokens", "billed_output_tokens", "charge_nanousd")]
    assert outcome == ["upstream_error", 0, 0, 0]
    expected = -(-len(answer.request.content) // 4) if path == EMBEDDINGS else 0
    assert record["input_tokens"] == expected
    assert record.get("input_source") == ("estimate" if path == EMBEDDINGS else None)


@pytest.mark.parametrize("fault", ["hang before head", "hang"])
@both
def test_a_caller_who_hangs_up_has_a_record_if_the_upstream_had_answered(
    loop: Rig, upstream: Plain, path: str, fault: str
) -> None:
    who = loop.customer("open")
    upstream.fault = fault
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(loop.url + path, json=ASKED[path], headers=who.headers, timeout=DEADLINE_S / 3)

    finishes = [record["finish"] for record in records(loop, who)]
    assert finishes == (["disconnect"] if fault == "hang" else [])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "model"),
    "a number for a model": ({"model": 5}, "model"),
}
NO_INPUT = [None, 5, {}, [], [True], [None], [1.5]]
ODD_INPUT = [(path, odd) for path in ASKED for odd in NO_INPUT] + [(EMBEDDINGS, [{}]), (COUNT_TOKENS, "")]
"""The gateway leaves it to the model to refuse an empty text or a message without a role."""


@pytest.mark.parametrize(("path", "odd"), ODD_INPUT, ids=repr)
def test_what_is_no_input_is_refused_by_its_name(loop: Rig, upstream: Plain, path: str, odd: Any) -> None:
    who = loop.customer("open")
    field = "input" if path == EMBEDDINGS else "messages"
    answer = call(loop, who, path, **{field: odd})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert upstream.sent == []
    assert records(loop, who) == []


@pytest.mark.parametrize("name", REFUSED)
@both
def test_what_is_no_model_is_refused_by_its_name(loop: Rig, upstream: Plain, path: str, name: str) -> None:
    parameters, field = REFUSED[name]
    answer = call(loop, loop.customer("open"), path, **parameters)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert upstream.sent == []


@both
def test_refusals_are_those_of_any_call(loop: Rig, upstream: Plain, path: str) -> None:
    """Key, model, customer, tier and pace are checked; refusals have the format's shape, and the model gets nothing."""
    nobody = Sold("cus_nobody", "tc-00-" + "x" * 43)
    blocked, tierless, quick = loop.customer("open"), loop.customer(None), loop.customer("slow")
    loop.admin.patch(f"/admin/customers/{blocked.id}", json={"status": "blocked"})
    assert call(loop, quick, path).status_code == 200
    upstream.sent.clear()
    for who, parameters, status, code in (
        (nobody, {}, 401, "invalid_api_key"),
        (quick, {"model": "gpt-9"}, 404, "model_not_found"),
        (blocked, {}, 403, "customer_blocked"),
        (tierless, {}, 403, "no_tier"),
        (quick, {}, 429, "rate_limit_exceeded"),
    ):
        answer = call(loop, who, path, **parameters)
        assert (answer.status_code, code_of(path, answer)) == (status, code)
    assert upstream.sent == []


@both
def test_a_period_without_tokens_left_does_not_refuse_what_generates_none(
    loop: Rig, upstream: Plain, path: str
) -> None:
    assert call(loop, loop.customer("gone"), path).status_code == 200


def test_input_counts_against_a_conversations_input_and_a_count_does_not(loop: Rig, upstream: Plain) -> None:
    """An embedding holds its body's bytes, which are more than five; a token count is unbilled and holds nothing."""
    who = loop.customer("short")
    refused = call(loop, who, EMBEDDINGS)

    assert (refused.status_code, code_of(EMBEDDINGS, refused)) == (429, "conversation_cap_reached")
    assert call(loop, who, COUNT_TOKENS).status_code == 200


@both
def test_a_repetition_is_sent_the_same_answer(loop: Rig, upstream: Plain, path: str) -> None:
    who = loop.customer("open")
    first, again = (call(loop, who, path, {"idempotency-key": "once"}) for _ in range(2))

    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(upstream.sent) == 1
    assert len(records(loop, who)) == 1


@both
def test_a_conversation_that_a_call_names_is_on_its_record(loop: Rig, upstream: Plain, path: str) -> None:
    who = loop.customer("open")
    answer = call(loop, who, path, {"x-conversation-id": "talk"})

    assert answer.headers["x-tokencap-conversation"] == "talk"
    assert [record["conversation"] for record in records(loop, who)] == ["talk"]


@both
def test_a_route_that_the_upstream_does_not_speak_is_404(
    valkey_url: str, sqlite_url: str, tmp_path: Path, path: str
) -> None:
    with (
        served(Plain()) as model,
        rig(valkey_url, sqlite_url, tmp_path, upstream=model, upstream_profile="ollama") as at,
    ):
        at.tier("open")
        answer = call(at, at.customer("open"), path)

        assert (answer.status_code, code_of(path, answer)) == (404, "not_found")
