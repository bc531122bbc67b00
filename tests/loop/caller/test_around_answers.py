"""What surrounds an answer: keep-alives in a silence, headers for proxies and browsers, and no trace of its cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import StartupError
from gateway.settings import read_settings
from tests.late import Library
from tests.loop.rig import Rig, Sold, rig
from tests.loop.scripted import ASKED, FORMATS, Scripted
from tests.servers import emptied

anthropic = Library("anthropic")
openai = Library("openai")

MODEL, EMBEDDER = "aligned-1", "embed-1"
PAGE = "https://app.example.com"
SIGNS = {
    path: b'event: ping\ndata: {"type":"ping"}\n\n' if "messages" in path else b": keep-alive\n\n" for path in FORMATS
}
SECRETS = (b"cost", b"provider", b"Reseller", b"byok")


@pytest.fixture(scope="module")
def model() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
def house_and_customer(
    model: Scripted, valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Rig, Sold]]:
    """A gateway whose streams are never silent for long and which pages of one origin may call, and a customer."""
    folder: Path = tmp_path_factory.mktemp("caller")
    settings: dict[str, Any] = {"stream_keep_alive_s": 0.1, "cors_origins": (PAGE,), "embedding_model": EMBEDDER}
    with rig(
        emptied(valkey_server), f"sqlite:///{folder}/ledger.sqlite", folder, upstream=model, **settings
    ) as running:
        running.tier("basic", conversation_tokens_max=1000, price_nanousd=1000)
        yield running, running.customer("basic")


def body_for(path: str, *, stream: bool = False) -> dict[str, Any]:
    body = {"model": EMBEDDER if "embeddings" in path else MODEL, **ASKED[path]}
    if stream:
        body |= {"stream": True} | ({"stream_options": {"include_usage": True}} if "completions" in path else {})
    return body


@pytest.mark.parametrize("path", [*FORMATS, "/v1/messages/count_tokens"])
def test_a_key_that_opens_nothing_is_not_tried_again(house_and_customer: tuple[Rig, Sold], path: str) -> None:
    loop, _ = house_and_customer

    answer = httpx.post(loop.url + path, json=body_for(path), headers={"x-api-key": "tc-00-" + "a" * 43})

    assert answer.status_code == 401
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", FORMATS)
def test_proxies_pass_a_stream_on_as_it_comes(house_and_customer: tuple[Rig, Sold], path: str) -> None:
    loop, who = house_and_customer

    streamed = httpx.post(loop.url + path, json=body_for(path, stream=True), headers=who.headers)
    whole = httpx.post(loop.url + path, json=body_for(path), headers=who.headers)

    assert streamed.headers["x-accel-buffering"] == "no"
    assert streamed.headers["cache-control"] == "no-cache"
    assert "x-accel-buffering" not in whole.headers


@pytest.mark.parametrize("path", FORMATS)
def test_a_silence_before_the_first_token_has_signs_of_life(
    house_and_customer: tuple[Rig, Sold], model: Scripted, path: str
) -> None:
    loop, who = house_and_customer
    model.may_go_on.clear()
    seen = b""

    with httpx.stream(
        "POST", loop.url + path, json=body_for(path, stream=True), headers=who.headers, timeout=30
    ) as answer:
        pieces = answer.iter_raw()
        while seen.count(SIGNS[path]) < 2:
            seen += next(pieces)
        model.may_go_on.set()
        rest = b"".join(pieces)

    assert seen.replace(SIGNS[path], b"") == b""
    assert b"Hello" in rest


def test_vendors_clients_pass_over_signs_of_life(house_and_customer: tuple[Rig, Sold], model: Scripted) -> None:
    loop, who = house_and_customer
    openai_client = openai.OpenAI(base_url=loop.url + "/v1", api_key=who.key, max_retries=0)
    anthropic_client = anthropic.Anthropic(base_url=loop.url, api_key=who.key, max_retries=0)
    model.before = b": OPENROUTER PROCESSING\n\n" * 3
    try:
        chunks = list(openai_client.chat.completions.create(**body_for(FORMATS[0], stream=True)))
        with anthropic_client.messages.stream(**body_for("/v1/messages")) as stream:
            message = stream.get_final_message()
        with openai_client.responses.stream(**body_for("/v1/responses")) as events:
            response = events.get_final_response()
    finally:
        model.before = b""

    assert chunks[0].choices[0].delta.content == "Hello"
    assert message.content[0].text == "Hello"  # type: ignore[union-attr]
    assert response.output_text == "Hello"


@pytest.mark.parametrize("path", FORMATS)
def test_an_upstreams_comments_pass_and_stand_in_no_answer(
    house_and_customer: tuple[Rig, Sold], model: Scripted, path: str
) -> None:
    loop, who = house_and_customer
    model.before = b": OPENROUTER PROCESSING\r\n\r\n:second\n\n: " + b"x" * 2000 + b"\n\n"
    try:
        streamed = httpx.post(loop.url + path, json=body_for(path, stream=True), headers=who.headers)
        whole = httpx.post(loop.url + path, json=body_for(path), headers=who.headers)
    finally:
        model.before = b""

    assert streamed.content.startswith(b": OPENROUTER PROCESSING\n\n: second\n\n")
    assert b"xxxx" not in streamed.content
    assert b"PROCESSING" not in whole.content
    assert whole.status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", [*FORMATS, "/v1/embeddings"])
def test_nobody_hears_what_the_house_pays_and_to_whom(
    house_and_customer: tuple[Rig, Sold], path: str, stream: bool
) -> None:
    loop, who = house_and_customer

    answer = httpx.post(loop.url + path, json=body_for(path, stream=stream and path in FORMATS), headers=who.headers)

    assert answer.status_code == 200
    assert not [word for word in SECRETS if word in answer.content], answer.text
    assert b"3" in answer.content if path != "/v1/messages" else b'"cache_read_input_tokens":2' in answer.content


def test_pages_of_named_origins_may_call_and_read_all_of_an_answer(house_and_customer: tuple[Rig, Sold]) -> None:
    loop, who = house_and_customer
    asking = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-os",
    }

    before = httpx.options(loop.url + FORMATS[0], headers=asking)
    answer = httpx.post(loop.url + FORMATS[0], json=body_for(FORMATS[0]), headers={**who.headers, "origin": PAGE})
    refused = httpx.post(loop.url + FORMATS[0], json={}, headers={**who.headers, "origin": PAGE})
    elsewhere = httpx.post(
        loop.url + FORMATS[0], json=body_for(FORMATS[0]), headers={**who.headers, "origin": "https://evil.example"}
    )

    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == PAGE
    assert before.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "POST" in before.headers["access-control-allow-methods"]
    assert [one.headers.get("access-control-allow-origin") for one in (answer, refused, elsewhere)] == [
        PAGE,
        PAGE,
        None,
    ]
    assert answer.headers["access-control-expose-headers"] == "*"


def test_counts_use_up_nothing_of_the_models_rate(house_and_customer: tuple[Rig, Sold]) -> None:
    loop, _ = house_and_customer
    loop.tier("slow", conversation_tokens_max=1000, price_nanousd=0, requests_per_minute=1)
    who = loop.customer("slow")
    count = "/v1/messages/count_tokens"

    statuses = [
        httpx.post(loop.url + path, json=body_for(path), headers=who.headers).status_code
        for path in (count, "/v1/messages", count, "/v1/messages")
    ]

    assert statuses == [200, 200, 429, 429]


def test_an_origin_is_one() -> None:
    for origin in ("app.example.com", "https://app.example.com/path", "https://*.example.com"):
        with pytest.raises(StartupError, match="CORS_ORIGINS"):
            read_settings(cors_origins=origin)

    assert read_settings(cors_origins="https://a.example, *").cors_origins == ("https://a.example", "*")
