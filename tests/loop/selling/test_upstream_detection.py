"""What the gateway detects of the model's endpoint: its engine, even one that starts later, and its context length."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.simulator.model_server import Law, build
from tests.loop.rig import rig
from tests.loop.scripted import ASKED, FORMATS, Scripted
from tests.serving import body_of, outlived
from tests.waiting import until

MODEL = "aligned-1"
LENGTH = 500
ROUTES = tuple(path for path in FORMATS if path != "/v1/messages")


def law(profile: str) -> Law:
    return Law(tokens_per_s=float("inf"), first_token_s=0, mean_tokens=40, profile=profile, context_tokens=LENGTH)


class Asleep:
    """An engine that is loading: it answers 503 until it is awake."""

    def __init__(self, profile: str) -> None:
        self.is_awake = False
        self._app = build(law(profile))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.is_awake or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        await body_of(receive)
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Bare:
    """An endpoint that refuses every format with a fixed status and body."""

    def __init__(self, status: int, words: bytes) -> None:
        self._status, self._words = status, words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await outlived(scope, receive, send):
            return
        await body_of(receive)
        await send({"type": "http.response.start", "status": self._status, "headers": []})
        await send({"type": "http.response.body", "body": self._words})


@pytest.mark.parametrize("mode", ["enforce", "observe"])
@pytest.mark.parametrize("profile", ["vllm", "llamacpp", "any"])
def test_a_model_shorter_than_any_answer_answers_all_the_same(
    profile: str, mode: str, valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """The context length is read from the list of models, or learnt from a refusal; the callers send no limit."""
    settings: dict[str, Any] = {"law": law(profile), "mode": mode}
    with rig(valkey_url, sqlite_url, tmp_path, **settings) as loop:
        loop.tier("open")
        who = loop.customer("open")
        answers = [
            httpx.post(loop.url + path, json={"model": MODEL, **ASKED[path], "stream": stream}, headers=who.headers)
            for path in ROUTES
            for stream in (False, True)
        ]
        asked_too_much = httpx.post(
            loop.url + ROUTES[0], json={"model": MODEL, **ASKED[ROUTES[0]], "max_tokens": LENGTH}, headers=who.headers
        )
        caps = {record["cap_tokens"] for record in loop.usage(who)}

    assert [answer.status_code for answer in answers] == [200] * len(answers), [one.text for one in answers]
    assert caps == ({LENGTH} if profile != "any" else {16_384})
    assert asked_too_much.status_code == 400  # the model itself refuses a limit that the caller set


def test_an_engine_that_comes_later_is_known_when_it_comes(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    model = Asleep("vllm")
    with rig(valkey_url, sqlite_url, tmp_path, upstream=model) as loop:
        loop.tier("open")
        who = loop.customer("open")
        body = {"model": MODEL, **ASKED[ROUTES[0]]}
        before = httpx.post(loop.url + ROUTES[0], json=body, headers=who.headers)
        model.is_awake = True
        until(lambda: "vllm" in loop.admin.get("/readyz").json()["upstream"])
        after = httpx.post(loop.url + ROUTES[0], json=body, headers=who.headers)

        assert before.status_code == 503
        assert after.headers["x-tokencap-cap"] == str(LENGTH)
        assert loop.admin.get("/readyz").json() == {
            "status": "ready",
            "upstream": "profile vllm, model 500 tokens long",
        }
        assert httpx.get(loop.url + "/readyz").json() == {"status": "ready"}
        assert httpx.get(loop.url + "/readyz", headers=who.headers).status_code == 401


def test_every_engine_takes_our_id_of_a_call(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """Some engines accept only a UUID; the id of the record contains it, so that both logs can be compared."""
    model = Scripted()
    with rig(valkey_url, sqlite_url, tmp_path, upstream=model) as loop:
        loop.tier("open")
        who = loop.customer("open")
        answer = httpx.post(loop.url + ROUTES[0], json={"model": MODEL, **ASKED[ROUTES[0]]}, headers=who.headers)

        sent = model.heads[-1]["x-request-id"]
        assert uuid.UUID(sent).hex == sent
        assert answer.headers["x-request-id"] == loop.usage(who)[0]["id"] == f"req_{sent}"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, b'{"type":"error","error":{"type":"not_found_error","message":"Not found"}}'),
        (404, b'{"error":{"code":"404","message":"Resource not found"}}'),
        (404, b'{"error":{"message":"Unknown request URL: POST /v1/x. Please check the URL.","code":"unknown_url"}}'),
        (404, b'{"message":"no Route matched with those values"}'),
        (404, b"404 page not found"),
        (404, b"<html>Cannot POST /v1/responses</html>"),
        (405, b'{"detail":"Method Not Allowed"}'),
    ],
)
def test_a_format_that_the_endpoint_has_not_is_said_to_be_missing(
    status: int, words: bytes, valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    with rig(valkey_url, sqlite_url, tmp_path, upstream=Bare(status, words)) as loop:
        loop.tier("open")
        who = loop.customer("open")
        answers = [
            httpx.post(loop.url + path, json={"model": MODEL, **ASKED[path]}, headers=who.headers)
            for path in ("/v1/responses", "/v1/messages")
        ]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert [answer.json()["error"]["message"] for answer in answers] == [
        "The model's endpoint does not speak /v1/responses.",
        "The model's endpoint does not speak /v1/messages.",
    ]
