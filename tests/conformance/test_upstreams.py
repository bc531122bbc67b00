"""Each kind of engine is detected, obeys the cap under its own name for it, and its errors are understood."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.serving.upstream.detection import Engine, detected
from gateway.serving.upstream.endpoint import Endpoint
from gateway.serving.upstream.profiles import ENDPOINTS, OPENAI, PROFILES
from gateway.simulator.engines import QUIRKS
from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.conformance.cases import BODIES
from tests.loop.rig import Rig, rig

CAP = 7
LENGTHS = Table((30,), (1.0,))


@pytest.fixture(params=sorted(QUIRKS))
def engine(
    request: pytest.FixtureRequest, valkey_url: str, sqlite_url: str, tmp_path: Path
) -> Iterator[tuple[str, Rig]]:
    """Each engine in turn behind a gateway that must detect it; OpenAI, known by its host alone, is configured."""
    name = str(request.param)
    law = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=LENGTHS, profile=name, context_tokens=20_000)
    settings = {"upstream_profile": name} if name == "openai" else {}
    with rig(
        valkey_url, sqlite_url, tmp_path, law=law, embedding_model="aligned-1-embedding", mode="enforce", **settings
    ) as loop:
        loop.tier("small", conversation_tokens_max=CAP)
        yield name, loop


def post(loop: Rig, path: str, headers: dict[str, str], **more: Any) -> httpx.Response:
    body = {"model": "aligned-1", **BODIES[path], **more}
    return httpx.post(loop.url + path, json=body, headers=headers, timeout=30)


def test_it_is_kept_to_the_cap_in_every_format_that_it_speaks(engine: tuple[str, Rig]) -> None:
    """The engine's own count equals the records': nothing was made beyond the grant, so nothing was cut."""
    name, loop = engine
    speaks = PROFILES[name].speaks
    for path in sorted(ENDPOINTS):
        for stream in (False, True):
            who = loop.customer("small")
            answer = post(loop, path, who.headers, **({"stream": stream} if "count" not in path else {}))
            assert answer.status_code == (200 if path in speaks else 404), (path, answer.text)
            if path not in speaks:
                assert answer.json()["error"]["message"] == f"The model's endpoint does not speak {path}."

    records, counted = loop.usage(), loop.counted()
    assert {record["endpoint"] for record in records} == speaks
    assert {record["usage_source"] for record in records} == {"upstream"}
    assert {record["billed_output_tokens"] for record in records} == {0, CAP}
    assert sum(record["output_tokens"] for record in records) == counted["completion_tokens"]


def test_what_it_refuses_is_understood(engine: tuple[str, Rig]) -> None:
    """An engine's error in any form: its message reaches the caller, a numeric code does not."""
    _, loop = engine
    who = loop.customer("small")
    refused = post(loop, "/v1/chat/completions", who.headers, messages=[{"role": "user", "content": "word " * 20_000}])

    error = refused.json()["error"]
    assert refused.status_code == 400
    assert error["message"].startswith("This model's maximum context length is ")
    assert error["code"] in ("context_length_exceeded", None)
    assert loop.usage(who) == []


def test_choices_are_multiplied_or_refused(engine: tuple[str, Rig]) -> None:
    name, loop = engine
    who = loop.customer("small")
    answer = post(loop, "/v1/chat/completions", who.headers, n=2)
    prompts = post(loop, "/v1/completions", who.headers, prompt=["a", "b"])

    if PROFILES[name].choices_most == 1:
        assert (answer.status_code, prompts.status_code) == (400, 400)
        return
    assert [choice["finish_reason"] for choice in answer.json()["choices"]] == ["length", "length"]
    assert [record["cap_tokens"] for record in loop.usage(who)] == [CAP // 2, CAP // 2]
    assert [record["output_tokens"] for record in loop.usage(who)] == [2 * (CAP // 2)] * 2
    assert loop.counted()["completion_tokens"] == 4 * (CAP // 2)


async def test_an_upstream_is_unknown_until_it_answers() -> None:
    assert await detected(Endpoint("http://127.0.0.1:1/v1"), "aligned-1") is None
    assert await detected(Endpoint("https://api.openai.com/v1"), "aligned-1") == Engine(OPENAI)


@pytest.mark.parametrize("missing", sorted(ENDPOINTS - QUIRKS["openai"].speaks))
def test_a_format_that_it_turns_out_not_to_speak_is_404(
    missing: str, valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """An engine that is too old for a route answers so itself; nothing is held, recorded or charged for the call."""
    law = Law(tokens_per_s=float("inf"), first_token_s=0, profile="openai")
    with rig(valkey_url, sqlite_url, tmp_path, law=law, upstream_profile="any") as loop:
        loop.tier("open")
        who = loop.customer("open")
        refused = post(loop, missing, who.headers)

        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        loop.until_nothing_is_held()
        assert loop.usage(who) == []
