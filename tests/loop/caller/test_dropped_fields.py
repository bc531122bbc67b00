"""An answer, streamed, whole or replayed, names the fields that did not reach the model; the operator sees a count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse

from gateway.errors import StartupError
from gateway.serving.caller.exchange import Message, Receive, Scope, Send
from gateway.serving.caller.headers import DROPPED_MOST
from gateway.serving.fields.field_tables import fates
from gateway.serving.fields.guarded_fields import HOUSES
from gateway.serving.fields.known_fields import KNOWN
from gateway.serving.upstream.profiles import COMPLETIONS, COUNT_TOKENS, EMBEDDINGS, PROFILES, RESPONSES
from gateway.settings import read_settings
from gateway.simulator.model_server import build as build_simulator
from tests.loop.rig import FAST, Rig, Sold, rig
from tests.servers import emptied
from tests.serving import body_of

SENT_ON = {"traceparent": "00-1-2-01", "anthropic-beta": "a,b", "anthropic-version": "2024-01-01", "x-team": "blue"}
KEPT_BACK = {"openai-organization": "org-1", "cookie": "a=b", "x-other": "1", "openai-beta": "c"}

TOO_LITTLE = {
    "error": {
        "message": "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 10 instead.",
        "type": "invalid_request_error",
        "param": "max_output_tokens",
        "code": "integer_below_min_value",
    }
}
"""OpenAI's refusal of too small a limit."""

VLLM = list(PROFILES).index("vllm")
UNREFUSED: dict[str, Any] = {"container": {}, "context_management": {"edits": []}}
"""Values for fields whose text value would be refused before the field is dropped."""

MORE: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "Hello", "messages": None},
    RESPONSES: {"input": "Hello", "max_output_tokens": 20, "messages": None, "max_tokens": None},
    COUNT_TOKENS: {"max_tokens": None},
    EMBEDDINGS: {"model": "aligned-1-embedding", "input": "Hello", "messages": None, "max_tokens": None},
}
"""Fields that each route needs in addition; ``None`` marks a field that the route cannot have."""

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}


class Model:
    """The simulated model, which remembers the headers of its last request."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._app = build_simulator(FAST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if not scope.get("path", "").endswith("/responses"):
            await self._app(scope, receive, send)
            return
        body = await body_of(receive)
        first: list[Message] = [{"type": "http.request", "body": body}]

        async def again() -> Message:
            return first.pop() if first else await receive()

        if json.loads(body)["max_output_tokens"] < 16:
            await JSONResponse(TOO_LITTLE, 400)(scope, again, send)
        else:
            await self._app(scope, again, send)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def house_and_customer(
    model: Model, valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, Sold]]:
    """A gateway before a vLLM, and a customer."""
    folder: Path = tmp_path_factory.mktemp("dropped")
    settings: dict[str, Any] = {"upstream": model, "upstream_profile": "vllm", "passed_headers": "X-Team"}
    settings["embedding_model"] = "aligned-1-embedding"
    with rig(emptied(valkey_server), f"sqlite:///{folder}/ledger.sqlite", folder, **settings) as running:
        running.tier("basic", conversation_tokens_max=1000, price_nanousd=1000)
        yield running, running.customer("basic")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_the_answer_names_what_was_dropped(house_and_customer: tuple[Rig, Sold], path: str, stream: bool) -> None:
    loop, who = house_and_customer
    body: dict[str, Any] = {**ASKED, "stream": stream, "made_up": 1, "odd\r\nname": 2, "chat_template_kwargs": {}}
    named = {**who.headers, "idempotency-key": f"{path} {stream}"}

    first = httpx.post(loop.url + path, json=body, headers=named)
    again = httpx.post(loop.url + path, json=body, headers=named)

    assert first.status_code == 200, first.text
    assert first.headers["x-tokencap-dropped"] == again.headers["x-tokencap-dropped"] == "made_up, odd??name"
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_budget_of_thought_has_room_in_the_cap(house_and_customer: tuple[Rig, Sold], stream: bool) -> None:
    """Under a cap without room for Claude Code's thinking budget, the budget is dropped and named, and is no error."""
    loop, _ = house_and_customer
    thinks = {**ASKED, "stream": stream, "max_tokens": 32000, "thinking": {"type": "enabled", "budget_tokens": 31999}}
    for tier, most, dropped in (("narrow", 1024, "thinking"), ("wide", 5000, None)):
        loop.tier(tier, conversation_tokens_max=most, price_nanousd=1000)
        who = loop.customer(tier)

        answer = httpx.post(f"{loop.url}/v1/messages", json=thinks, headers=who.headers)

        assert answer.status_code == 200, answer.text
        assert answer.headers.get("x-tokencap-dropped") == dropped


def test_headers_of_a_request_pass_by_an_allow_list(house_and_customer: tuple[Rig, Sold], model: Model) -> None:
    """Headers of tracing, the format and the operator's list pass; a caller cannot choose the upstream account."""
    loop, who = house_and_customer

    answer = httpx.post(f"{loop.url}/v1/messages", json=ASKED, headers={**who.headers, **SENT_ON, **KEPT_BACK})

    assert answer.status_code == 200, answer.text
    assert {name: model.headers.get(name) for name in SENT_ON} == SENT_ON
    assert not {*KEPT_BACK, "authorization"} & model.headers.keys()
    assert answer.headers["x-tokencap-dropped"] == "openai-organization"


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "Cookie", "openai-project", "content-length", "a b"])
def test_no_setting_lets_what_is_kept_here_pass(name: str) -> None:
    with pytest.raises(StartupError, match="TOKENCAP_PASSED_HEADERS"):
        read_settings(passed_headers=name)


@pytest.mark.parametrize(
    ("limit", "status", "code"),
    [
        (None, 429, "conversation_cap_reached"),
        (90, 429, "conversation_cap_reached"),
        (8, 400, "integer_below_min_value"),
    ],
)
def test_less_than_the_upstream_takes_is_a_cap_reached(
    house_and_customer: tuple[Rig, Sold], limit: int | None, status: int, code: str
) -> None:
    """No refusal names a field that the caller did not send; a caller who sent too small a limit reads that."""
    loop, _ = house_and_customer
    loop.tier("tiny", conversation_tokens_max=10, price_nanousd=1000)
    who = loop.customer("tiny")
    body = {"model": "aligned-1", "input": "Hello", "max_output_tokens": limit}

    answer = httpx.post(f"{loop.url}/v1/responses", json=body, headers=who.headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("x-should-retry") == ("false" if status == 429 else None)
    assert loop.account(who)["period"]["tokens_held"] == 0


@pytest.mark.parametrize("endpoint", KNOWN)
def test_every_field_that_a_vllm_does_not_know_is_named_and_counted(
    house_and_customer: tuple[Rig, Sold], endpoint: str
) -> None:
    """Each body has as many fields that only other profiles know as the header has room for."""
    loop, who = house_and_customer
    names = sorted(HOUSES | {name for name, fate in fates(endpoint).items() if fate[VLLM] == "dropped"})
    body = {name: value for name, value in {**ASKED, **MORE.get(endpoint, {})}.items() if value is not None}

    for dropped in (names[at : at + DROPPED_MOST] for at in range(0, len(names), DROPPED_MOST)):
        answer = httpx.post(
            loop.url + endpoint,
            json={**body, **{name: UNREFUSED.get(name, "abc") for name in dropped}},
            headers=who.headers,
        )

        assert answer.status_code == 200, answer.text
        assert answer.headers["x-tokencap-dropped"].split(", ") == dropped
    assert set(names) <= counted(loop)


def test_what_was_dropped_is_counted_by_names_that_are_known(house_and_customer: tuple[Rig, Sold]) -> None:
    """All unknown names count in one series, so a caller cannot create series."""
    loop, who = house_and_customer
    httpx.post(f"{loop.url}/v1/chat/completions", json={**ASKED, "priority": 9, "zzz": 1}, headers=who.headers)

    assert counted(loop) >= {"priority", "other"}
    assert not {"zzz", "made_up"} & counted(loop)


def counted(loop: Rig) -> set[str]:
    """Return the names of fields that a metric counts as dropped."""
    lines = loop.admin.get("/metrics").text.splitlines()
    return {line.split('"')[1] for line in lines if line.startswith("tokencap_dropped_fields_total{")}
