"""A customer imported from elsewhere goes on with its own key, which can be revoked here like any other."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import httpx
import redis

from gateway.holds.store.clients import connect
from tests.loop.rig import Rig
from tests.waiting import until

KEY = "sk-live-4f1b9c77d2e0a853"
ASKED: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}


def imported(loop: Rig) -> dict[str, Any]:
    loop.tier("open")
    key = {"sha256": sha256(KEY.encode()).hexdigest(), "prefix": KEY[:12]}
    answer = loop.admin.post(
        "/admin/customers/bulk", json={"customers": [{"name": "A", "tier": "open", "keys": [key]}]}
    )
    assert answer.status_code == 201, answer.text
    imported_row: dict[str, Any] = answer.json()["data"][0]
    return imported_row


def account_of(loop: Rig, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=headers)


def test_an_imported_key_is_served_metered_and_revoked(loop: Rig) -> None:
    imported_row = imported(loop)
    answers = [account_of(loop, {"authorization": f"Bearer {KEY}"}), account_of(loop, {"x-api-key": KEY})]
    account = httpx.get(f"{loop.url}/v1/account", headers={"authorization": f"Bearer {KEY}"})

    assert [answer.status_code for answer in answers] == [200, 200]
    assert account.json()["customer"] == imported_row["customer"]["id"]
    assert {record["customer"] for record in loop.usage()} == {imported_row["customer"]["id"]}
    assert loop.admin.delete(f"/admin/keys/{imported_row['keys'][0]['key_id']}").status_code == 204
    assert account_of(loop, {"authorization": f"Bearer {KEY}"}).status_code == 401


def test_a_key_that_nobody_imported_is_unknown(loop: Rig) -> None:
    imported(loop)
    for key in (KEY + "x", KEY[:-1], "short", "x" * 300, "sk with spaces and more"):
        refused = account_of(loop, {"authorization": f"Bearer {key}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert loop.counted()["calls"] == 0


def test_an_imported_key_is_known_again_after_redis_lost_everything(loop: Rig) -> None:
    imported(loop)
    with connect(loop.settings.redis_url) as client:
        assert isinstance(client, redis.Redis)
        client.flushall()

    until(lambda: account_of(loop, {"authorization": f"Bearer {KEY}"}).status_code == 200)
