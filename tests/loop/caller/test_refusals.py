"""The log of refusals: customer and operator read which limit refused a call, and what was used, held and requested."""

from __future__ import annotations

from typing import Any

import httpx

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect
from gateway.holds.store.refusal_log import KEPT_S, MOST
from tests.loop.rig import Rig, Sold
from tests.waiting import until

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}


def call(loop: Rig, who: Sold, **headers: str) -> httpx.Response:
    return httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers={**who.headers, **headers})


def own(loop: Rig, who: Sold) -> list[dict[str, Any]]:
    return httpx.get(f"{loop.url}/v1/account/refusals", headers=who.headers).json()["data"]


def log_of(loop: Rig, who: Sold) -> list[dict[str, Any]]:
    return loop.admin.get(f"/admin/customers/{who.id}/refusals").json()["data"]


def last(loop: Rig, who: Sold, count: int = 1) -> dict[str, Any]:
    """Return the newest refusal once there are at least ``count``."""
    until(lambda: len(log_of(loop, who)) >= count)
    return log_of(loop, who)[0]


def test_a_refusal_says_which_limit_it_was_and_how_far_it_was_used(loop: Rig) -> None:
    """The quota is refused once what remains of the period has no room for a whole conversation."""
    loop.tier("only", conversation_tokens_max=50, price_nanousd=1_000, period_tokens_max=60)
    who = loop.customer("only")
    served = call(loop, who)
    assert served.is_success
    loop.until_nothing_is_held()
    used = loop.account(who)["period"]["tokens_used"]

    refused = call(loop, who)

    found = last(loop, who)
    key_id = loop.usage(who)[0]["key_id"]
    figures = {"limit": "period_tokens_max", "max": 60, "used": used, "held": 0, "asked": 50}
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert found == {
        **{"time": found["time"], "status": 429, "code": "insufficient_quota", "key_id": key_id, **figures},
        "request_id": refused.headers["x-request-id"],
    }
    assert own(loop, who) == log_of(loop, who) == [found]


def test_every_kind_of_limit_is_named(loop: Rig) -> None:
    loop.tier("spend", conversation_tokens_max=50, price_nanousd=1_000, spend_nanousd_max=999)
    loop.tier("cap", conversation_tokens_max=1)
    loop.tier("input", conversation_tokens_max=50, conversation_input_tokens_max=1)
    loop.tier("rate", conversation_tokens_max=50, requests_per_minute=1)
    loop.tier("user", conversation_tokens_max=50, price_nanousd=1, end_user_period_tokens_max=1)
    found = {}
    for name, calls in (("spend", 1), ("cap", 2), ("input", 1), ("rate", 3), ("user", 1)):
        who = loop.customer(name)
        for _ in range(calls):
            call(loop, who, **{"x-conversation-id": "one"})
        found[name] = last(loop, who)
    nobody = loop.customer(None)
    call(loop, nobody)

    without = last(loop, nobody)

    shown = {name: (one["code"], one["limit"], one["max"], one["used"]) for name, one in found.items()}
    assert shown == {
        "spend": ("insufficient_quota", "spend_nanousd_max", 999, 0),
        "cap": ("conversation_cap_reached", "conversation_tokens_max", 1, 1),
        "input": ("conversation_cap_reached", "conversation_input_tokens_max", 1, 0),
        "rate": ("rate_limit_exceeded", "requests_per_minute", 1, None),
        "user": ("end_user_quota_reached", "end_user_period_tokens_max", 1, 0),
    }
    assert found["spend"]["asked"] == 1_000
    assert (without["code"], without["limit"], without["asked"]) == ("no_tier", None, None)


def test_what_is_no_limit_of_the_customers_is_not_kept(loop: Rig) -> None:
    """A refused body, an unknown key and a served call leave no entry."""
    loop.tier("only", conversation_tokens_max=50)
    loop.tier("none", conversation_tokens_max=50, period_tokens_max=1, price_nanousd=1)
    who, stranger = loop.customer("only"), Sold("", "tc-00-nobodys")
    httpx.post(f"{loop.url}/v1/chat/completions", json={"model": "aligned-1"}, headers=who.headers)
    assert call(loop, stranger).status_code == 401
    assert call(loop, who).is_success
    later = loop.customer("none")
    call(loop, later)
    last(loop, later)

    assert own(loop, who) == []
    assert loop.admin.get("/admin/customers/cus_none/refusals").status_code == 404
    assert httpx.get(f"{loop.url}/v1/account/refusals").status_code == 401


def test_the_last_thousand_are_kept_for_a_while_and_go_with_the_customer(loop: Rig) -> None:
    loop.tier("none", conversation_tokens_max=50, period_tokens_max=1, price_nanousd=1)
    who = loop.customer("none")
    with connect(loop.settings.redis_url) as client:
        name = redis_keys.refusals(redis_keys.bucket_of(who.id), who.id)
        client.rpush(
            name, *(b'[%d,429,"x",null,null,null,null,null,null,"old_%d"]' % (place, place) for place in range(MOST))
        )

        refused = call(loop, who)
        until(lambda: log_of(loop, who)[0]["request_id"] == refused.headers["x-request-id"])

        assert client.llen(name) == MOST
        assert 0 < client.ttl(name) <= KEPT_S
        assert [one["request_id"] for one in own(loop, who)] == [one["request_id"] for one in log_of(loop, who)]
        assert len(log_of(loop, who)) == MOST
        path = f"/admin/customers/{who.id}/refusals"
        assert loop.admin.get(path, params={"limit": 2}).json()["data"] == log_of(loop, who)[:2]
        assert [loop.admin.get(path, params={"limit": limit}).status_code for limit in (0, MOST + 1)] == [422, 422]
        loop.admin.delete(f"/admin/customers/{who.id}?erase=true")
        assert not client.exists(name)
