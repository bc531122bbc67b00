"""The upstream receives only names that belong to the customer, or that the gateway gave to the customer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig
from tests.loop.scripted import ASKED, Scripted
from tests.servers import emptied

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
MODEL = "aligned-1"
REFERRED: dict[str, Any] = {"input": [{"type": "item_reference", "id": "m_1"}, {"role": "user", "content": "Go on"}]}
FILE = {"type": "image", "source": {"type": "file", "file_id": "file_1"}}


@pytest.fixture(scope="module")
def model() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
def loop(model: Scripted, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder: Path = tmp_path_factory.mktemp("names")
    with rig(emptied(valkey_server), f"sqlite:///{folder}/ledger.sqlite", folder, upstream=model) as running:
        running.tier("open", conversation_tokens_max=1000)
        yield running


def call(loop: Rig, who: Sold, path: str, **more: Any) -> httpx.Response:
    return httpx.post(loop.url + path, json={"model": MODEL, **ASKED[path], **more}, headers=who.headers, timeout=30)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *((CHAT, name) for name in ("user", "safety_identifier", "prompt_cache_key", "cache_salt")),
        *((RESPONSES, name) for name in ("user", "safety_identifier", "prompt_cache_key", "cache_salt")),
        (MESSAGES, "cache_salt"),
    ],
)
def test_a_name_of_the_customers_choice_is_its_own(loop: Rig, model: Scripted, path: str, name: str) -> None:
    """A name becomes the same text for one customer and another text for any other, and no text contains the name."""
    one, other = loop.customer("open"), loop.customer("open")
    sent = []
    for who, value in ((one, "ann"), (one, "ann"), (one, "bob"), (other, "ann")):
        assert call(loop, who, path, **{name: value}).status_code == 200
        sent.append(model.requests[-1][name])

    assert sent[0] == sent[1]
    assert len(set(sent)) == 3
    assert not any("ann" in each for each in sent)


def test_an_end_user_of_messages_is_the_customers_own(loop: Rig, model: Scripted) -> None:
    who = loop.customer("open")
    assert call(loop, who, MESSAGES, metadata={"user_id": "ann"}).status_code == 200

    assert model.requests[-1]["metadata"]["user_id"] not in ("ann", "")
    assert loop.usage(who)[0]["end_user"] == "ann"


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        (MESSAGES, {"messages": [{"role": "user", "content": [FILE]}]}, "messages"),
        (MESSAGES, {"container": "container_1"}, "container"),
        (MESSAGES, {"container": {"id": "container_1"}}, "container"),
        (RESPONSES, {"prompt": {"id": "pmpt_1"}}, "prompt"),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
            "input",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
            "messages",
        ),
    ],
)
def test_what_the_house_keeps_is_nobodys_to_name(
    loop: Rig, model: Scripted, path: str, more: dict[str, Any], param: str
) -> None:
    before = len(model.requests)
    refused = call(loop, loop.customer("open"), path, **more)

    assert refused.status_code == 400
    assert (refused.json()["error"]["code"], refused.json()["error"]["param"]) == ("not_given", param)
    assert len(model.requests) == before


def test_a_conversation_of_the_upstreams_is_not_named_there(loop: Rig, model: Scripted) -> None:
    """The field names the gateway's conversation; the upstream's own conversations are never shown to a customer."""
    answer = call(loop, loop.customer("open"), RESPONSES, conversation="conv_1")

    assert answer.headers["x-tokencap-conversation"] == "conv_1"
    assert "conversation" in answer.headers["x-tokencap-dropped"]
    assert "conversation" not in model.requests[-1]


def test_an_item_that_is_referred_to_leads_to_its_conversation(loop: Rig, model: Scripted) -> None:
    who, other = loop.customer("open"), loop.customer("open")
    first = call(loop, who, RESPONSES)
    second = call(loop, who, RESPONSES, **REFERRED)
    strange = call(loop, other, RESPONSES, **REFERRED)
    together = call(loop, other, RESPONSES, **REFERRED, conversation="mine")

    assert second.status_code == 200
    assert second.headers["x-tokencap-conversation"] == first.headers["x-tokencap-conversation"]
    assert model.requests[-1]["input"][0] == REFERRED["input"][0]
    for refused in (strange, together):
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "item_not_found")
