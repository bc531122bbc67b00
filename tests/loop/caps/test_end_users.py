"""A customer's end users: named by a field of each format, on the usage record, and limited separately."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.holds.store.clients import connect
from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until

LONG = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((1_000,), (1.0,)))
TALK = [{"role": "user", "content": "Hello"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TALK, "max_tokens": 10},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 10},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 10},
    "/v1/messages": {"messages": TALK, "max_tokens": 10},
    "/v1/messages/count_tokens": {"messages": TALK},
    "/v1/embeddings": {"input": "Hello", "model": "aligned-1-embedding"},
}
GENERATE = [path for path in ROUTES if path not in ("/v1/messages/count_tokens", "/v1/embeddings")]


@pytest.fixture(scope="module")
def loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """A loop that all tests share, each with a customer of its own."""
    with rig(*shared, law=LONG, embedding_model="aligned-1-embedding") as running:
        running.tier("open")
        running.tier("shared", end_user_period_tokens_max=10, price_nanousd=1)
        yield running


def named(path: str, who: Any) -> dict[str, Any]:
    """Return the part of a body that names an end user on a route."""
    return {"metadata": {"user_id": who}} if path.startswith("/v1/messages") else {"user": who}


def call(loop: Rig, who: Sold, path: str, **fields: Any) -> httpx.Response:
    body = {"model": "aligned-1", **ROUTES[path], **fields}
    return httpx.post(loop.url + path, json=body, headers=who.headers, timeout=30)


@pytest.mark.parametrize("path", ROUTES)
def test_the_end_user_whom_a_call_names_is_on_its_record(loop: Rig, path: str) -> None:
    """The record of a call without an end user has no such field. Operator and customer can filter by it."""
    who = loop.customer("open")
    for named_user in (named(path, "ann"), {}, named(path, None), named(path, "")):
        assert call(loop, who, path, **named_user).status_code == 200

    first, *others = loop.usage(who)
    assert first["end_user"] == "ann"
    assert len(others) == 3
    assert not any("end_user" in record for record in others)
    query = {"customer": who.id, "end_user": "ann"}
    assert loop.admin.get("/admin/usage", params=query).json()["data"] == [first]
    own = httpx.get(f"{loop.url}/v1/account/usage", params={"end_user": "ann"}, headers=who.headers, timeout=30)
    assert own.json()["data"] == [first]


@pytest.mark.parametrize("path", ROUTES)
def test_an_end_user_that_is_no_text_is_refused_by_its_name(loop: Rig, path: str) -> None:
    who = loop.customer("open")
    for odd in (5, ["ann"], {"id": "ann"}, True):
        refused = call(loop, who, path, **named(path, odd))

        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == ("metadata.user_id" if "messages" in path else "user")
    assert loop.usage(who) == []


@pytest.mark.parametrize("odd", ["x" * 257, "a\x00b", "line\nline", "\ud800", "\u202e"])
def test_an_end_user_that_no_record_has_room_for_stands_there_as_its_digest(loop: Rig, odd: str) -> None:
    """Two long names that begin alike stay two end users on every database."""
    who = loop.customer("open")
    raw = json.dumps({"model": "aligned-1", **ROUTES["/v1/chat/completions"], "user": odd}).encode()
    answer = httpx.post(f"{loop.url}/v1/chat/completions", content=raw, headers=who.headers, timeout=30)

    assert answer.status_code == 200
    (record,) = loop.usage(who)
    assert record["end_user"] == "sha256:" + hashlib.sha256(odd.encode("utf-8", "surrogatepass")).hexdigest()


def test_openais_newer_word_for_the_end_user_comes_first_and_both_reach_the_model(loop: Rig) -> None:
    who = loop.customer("open")
    for path in GENERATE[:3]:
        answer = call(loop, who, path, safety_identifier="ann", user="bob", prompt_cache_key="cache")
        assert answer.status_code == 200

    assert {record["end_user"] for record in loop.usage(who)} == {"ann"}


@pytest.mark.parametrize("path", GENERATE)
def test_an_end_user_has_its_own_part_of_the_period_in_every_format(loop: Rig, path: str) -> None:
    """With ten tokens each, one end user's second call is refused in the format's shape; another's first is served."""
    who = loop.customer("shared")
    assert call(loop, who, path, **named(path, "ann")).status_code == 200
    refused = call(loop, who, path, **named(path, "ann"))
    assert call(loop, who, path, **named(path, "bob")).status_code == 200

    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    body = refused.json()
    assert body["error"]["code"] == "end_user_quota_reached"
    if path == "/v1/messages":
        assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
        assert body["error"]["param"] == "metadata.user_id"
    else:
        assert (body["error"]["type"], body["error"]["param"]) == ("insufficient_quota", "user")
    assert [record["end_user"] for record in loop.usage(who)] == ["ann", "bob"]


def test_what_generates_nothing_is_served_to_an_end_user_that_has_had_its_part(loop: Rig) -> None:
    who = loop.customer("shared")
    assert call(loop, who, "/v1/chat/completions", user="ann").status_code == 200

    assert call(loop, who, "/v1/embeddings", user="ann").status_code == 200
    assert call(loop, who, "/v1/messages/count_tokens", metadata={"user_id": "ann"}).status_code == 200


def test_a_customers_own_limit_for_each_end_user_goes_before_its_tiers(loop: Rig) -> None:
    who = loop.customer("shared", overrides={"end_user_period_tokens_max": 20})
    statuses = [call(loop, who, "/v1/chat/completions", user="ann").status_code for _ in range(3)]

    assert statuses == [200, 200, 429]


def test_what_end_users_have_had_survives_the_loss_of_redis(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """The windows of end users are rebuilt from the ledger, only for customers that limit their end users."""
    with rig(valkey_url, sqlite_url, tmp_path, law=LONG) as loop:
        loop.tier("open")
        limited = loop.customer("open", overrides={"end_user_period_tokens_max": 10})
        free = loop.customer("open")
        for who in (limited, free):
            assert call(loop, who, "/v1/chat/completions", user="ann").status_code == 200
            assert call(loop, who, "/v1/chat/completions").status_code == 200
        loop.until_nothing_is_held()
        until(lambda: len(loop.usage()) == 4)
        before = windows(loop)
        with connect(loop.settings.redis_url) as client:
            client.flushall()

        refused = until(lambda: _answered(call(loop, limited, "/v1/chat/completions", user="ann")))
        assert refused.json()["error"]["code"] == "end_user_quota_reached"
        assert call(loop, free, "/v1/chat/completions", user="ann").status_code == 200
        assert windows(loop) == before
        assert sorted(before.values()) == [10, 10]


def windows(loop: Rig) -> dict[str, int]:
    """Return what each end user that Redis knows has used."""
    with connect(loop.settings.redis_url) as client:
        return {name.decode(): int(client.hget(name, "used") or 0) for name in client.keys("*:end_user:*")}


def _answered(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == 503 else answer
