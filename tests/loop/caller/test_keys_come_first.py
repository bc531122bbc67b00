"""A caller whose key opens nothing is told that and nothing else, whatever else is wrong with the call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig

TALK = [{"role": "user", "content": "Hello"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TALK},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": TALK, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": TALK},
    "/v1/embeddings": {"input": "Hello", "model": "aligned-1-embedding"},
}
WRONG: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "an answer nobody had": {"previous_response_id": "resp_1"},
    "no name of a conversation": {"conversation": "a b"},
    "another model": {"model": "gpt-9"},
    "a limit that is none": {"max_tokens": -1, "user": 5, "metadata": {"user_id": 5}},
}


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share, each with a customer of its own."""
    with rig(*shared, embedding_model="aligned-1-embedding") as running:
        running.tier("open")
        yield running


def refused(loop: Rig, path: str, body: bytes, key: str, **headers: str) -> None:
    answer = httpx.post(loop.url + path, content=body, headers={"authorization": f"Bearer {key}", **headers})

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), answer.text


def revoked(loop: Rig, who: Sold) -> None:
    for key in loop.admin.get(f"/admin/customers/{who.id}/keys").json()["data"]:
        assert loop.admin.delete(f"/admin/keys/{key['key_id']}").status_code == 204


@pytest.mark.parametrize("path", ROUTES)
def test_a_key_that_opens_nothing_is_all_its_holder_hears_of(loop: Rig, path: str) -> None:
    """The same for a key that never existed and for one that was revoked after this gateway had cached it."""
    who = loop.customer("open")
    good = json.dumps({"model": "aligned-1", **ROUTES[path]}).encode()
    assert httpx.post(loop.url + path, content=good, headers=who.headers).status_code == 200
    revoked(loop, who)

    for key in (who.key[:-1] + ("x" if who.key[-1] != "x" else "y"), who.key):
        for wrong in WRONG.values():
            refused(loop, path, json.dumps({"model": "aligned-1", **ROUTES[path], **wrong}).encode(), key)
        refused(loop, path, b"{", key)
        refused(loop, path, good, key, **{"x-conversation-id": "a b"})
        refused(loop, path, good, key, **{"x-tokencap-tier": "open"})
        refused(loop, path, good, key, **{"content-encoding": "gzip"})
    assert len(loop.usage(who)) == 1


def test_a_revoked_key_is_not_sent_an_answer_that_was_kept_for_it(loop: Rig) -> None:
    """Nor does the refusal reveal that the Idempotency-Key was used with another body."""
    who = loop.customer("open")
    body = {"model": "aligned-1", "messages": TALK}
    once = {"idempotency-key": "once"}
    answer = httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers={**who.headers, **once})
    assert answer.status_code == 200
    revoked(loop, who)

    refused(loop, "/v1/chat/completions", answer.request.content, who.key, **once)
    refused(loop, "/v1/chat/completions", json.dumps({**body, "n": 2}).encode(), who.key, **once)
