"""A customer with its own prices, or with limits raised for a time, is served by these terms and is shown them."""

from __future__ import annotations

from typing import Any

import httpx

from gateway.clock import now_ms
from gateway.holds.store.clients import connect
from tests.loop.rig import Rig, Sold
from tests.waiting import until

BODY: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}


def call(loop: Rig, who: Sold) -> httpx.Response:
    return httpx.post(f"{loop.url}/v1/chat/completions", json=BODY, headers=who.headers, timeout=60)


def test_own_prices_are_charged_and_shown(loop: Rig) -> None:
    """They are charged at once, and after Redis has lost everything; each record names the terms of its charge."""
    loop.tier("small", price_nanousd=900)
    who, other = loop.customer("small"), loop.customer("small")
    assert call(loop, who).headers["x-tokencap-charge-nanousd"] == "900"
    menu = loop.account(who)["menu_version"]
    loop.admin.patch(f"/admin/customers/{who.id}", json={"overrides": {"price_nanousd": 700}}).raise_for_status()
    answers = [call(loop, who)]
    loop.usage(who)
    with connect(loop.settings.redis_url) as client:
        client.flushall()
    answers.append(until(lambda: answer if (answer := call(loop, who)).status_code == 200 else None))

    assert [one.headers["x-tokencap-charge-nanousd"] for one in answers] == ["700", "700"]
    assert [one["menu_version"] for one in loop.usage(who)] == [menu, *2 * [f"{menu}+c700"]]
    account, sold = loop.account(who), httpx.get(f"{loop.url}/v1/account/menu", headers=who.headers).json()
    assert (account["menu_version"], account["own_prices"]) == (f"{menu}+c700", {"price_nanousd": 700})
    assert [(tier["name"], tier["price_nanousd"]) for tier in sold["tiers"]] == [("small", 700)]
    assert httpx.get(f"{loop.url}/v1/menu").json()["tiers"][0]["price_nanousd"] == 900
    assert loop.account(other)["own_prices"] is None


def test_an_increase_is_in_force_at_once_and_ends_by_itself(loop: Rig) -> None:
    """The account shows the increase, and the operator does nothing to end it."""
    loop.tier("small", price_nanousd=1, period_tokens_max=10)
    who = loop.customer("small")
    assert call(loop, who).status_code == 429
    until_ms = now_ms() + 1_500
    raised = {"period_tokens_max": 500, "until": until_ms, "reason": "Launch"}
    loop.admin.put(f"/admin/customers/{who.id}/increase", json=raised).raise_for_status()
    account = loop.account(who)
    served = call(loop, who).status_code

    assert account["period"]["tokens_max"] == 500 and account["increase"]["limits"] == {"period_tokens_max": 500}
    assert served == 200 or now_ms() >= until_ms
    until(lambda: now_ms() >= until_ms or None)
    assert call(loop, who).status_code == 429
    until(lambda: loop.admin.get(f"/admin/customers/{who.id}").json()["increase"] is None or None)
    assert loop.account(who)["increase"] is None
