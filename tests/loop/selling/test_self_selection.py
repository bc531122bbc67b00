"""Where they may, customers choose their tier, or a tier for one conversation; and they read what they used."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until

BODY: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}


@pytest.fixture
def choosing(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path, self_selection="conversation") as running:
        running.tier("small", conversation_tokens_max=20, price_nanousd=1)
        running.tier("large", conversation_tokens_max=200, price_nanousd=5)
        yield running


def say(loop: Rig, who: Sold, **headers: str) -> httpx.Response:
    return httpx.post(f"{loop.url}/v1/chat/completions", json=BODY, headers={**who.headers, **headers})


def choose(loop: Rig, who: Sold, body: Any) -> httpx.Response:
    return httpx.put(f"{loop.url}/v1/account/tier", json=body, headers=who.headers)


def test_a_customers_choice_holds_from_its_next_conversation_on(choosing: Rig) -> None:
    who = choosing.customer("small")
    say(choosing, who, **{"x-conversation-id": "talk"})
    chosen = choose(choosing, who, {"tier": "large"})
    old, new = say(choosing, who, **{"x-conversation-id": "talk"}), say(choosing, who)

    assert (chosen.status_code, chosen.json()["tier"]) == (200, "large")
    assert old.headers["x-tokencap-tier"] == "small"
    assert new.headers["x-tokencap-tier"] == "large"


def test_a_customer_without_a_tier_takes_one(choosing: Rig) -> None:
    who = choosing.customer(None)
    refused = say(choosing, who)
    choose(choosing, who, {"tier": "small"})

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "no_tier")
    assert say(choosing, who).status_code == 200


def test_a_conversation_is_begun_in_the_tier_its_first_call_names(choosing: Rig) -> None:
    who = choosing.customer("small")
    named = {"x-conversation-id": "talk", "x-tokencap-tier": "large"}
    first, second = say(choosing, who, **named), say(choosing, who, **{"x-conversation-id": "talk"})

    assert first.headers["x-tokencap-tier"] == second.headers["x-tokencap-tier"] == "large"
    assert choosing.account(who)["tier"] == "small"
    assert [record["tier_chosen"] for record in choosing.usage(who)] == ["large", None]


def test_a_tier_that_is_not_sold_is_not_found(choosing: Rig) -> None:
    who = choosing.customer("small")
    refusals = [choose(choosing, who, {"tier": "huge"}), say(choosing, who, **{"x-tokencap-tier": "huge"})]
    malformed = [choose(choosing, who, body) for body in ({}, {"tier": 3}, [])]

    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in refusals} == {(404, "tier_not_found")}
    assert {answer.status_code for answer in malformed} == {400}


def test_nobody_chooses_where_the_operator_does(loop: Rig) -> None:
    loop.tier("small")
    who = loop.customer("small")
    refusals = [choose(loop, who, {"tier": "small"}), say(loop, who, **{"x-tokencap-tier": "small"})]

    assert {answer.status_code for answer in refusals} == {403}
    assert {answer.json()["error"]["code"] for answer in refusals} == {"tier_change_not_allowed"}


def test_a_customer_reads_its_own_records_and_no_other(choosing: Rig) -> None:
    who, other = choosing.customer("small"), choosing.customer("small")
    ids = [say(choosing, who).headers["x-request-id"] for _ in range(3)]
    say(choosing, other)
    choosing.until_booked()
    address = f"{choosing.url}/v1/account/usage"
    first = httpx.get(address, params={"limit": 2}, headers=who.headers).json()
    rest = httpx.get(address, params={"limit": 2, "cursor": first["next_cursor"]}, headers=who.headers).json()
    bad = [httpx.get(address, params=query, headers=who.headers) for query in ({"limit": "0"}, {"from": "now"})]

    assert [record["id"] for record in first["data"] + rest["data"]] == ids
    assert rest["next_cursor"] is None
    assert {(answer.status_code, answer.json()["error"]["param"]) for answer in bad} == {(400, "limit"), (400, "from")}


def test_the_published_menu_is_for_everyone_to_see(choosing: Rig) -> None:
    menu = httpx.get(f"{choosing.url}/v1/menu").json()

    assert [tier["name"] for tier in menu["tiers"]] == ["small", "large"]
    assert set(menu) == {"version", "created", "currency", "bill", "tiers"}


def test_a_subscription_charges_its_fee_once_and_more_conversations_than_it_includes(choosing: Rig) -> None:
    choosing.tier("monthly", price_nanousd=7, period_price_nanousd=100, included_conversations=2)
    who = choosing.customer("monthly")
    until(lambda: any(record["kind"] == "fee" for record in choosing.usage(who)))
    charges = [say(choosing, who).headers["x-tokencap-charge-nanousd"] for _ in range(3)]

    assert charges == ["0", "0", "7"]
    assert [record["charge_nanousd"] for record in choosing.usage(who) if record["kind"] == "fee"] == [100]
    assert choosing.account(who)["spend"]["used_nanousd"] == 7


def test_a_paid_period_keeps_its_menu_and_a_choice_waits_for_its_end(choosing: Rig) -> None:
    choosing.tier("monthly", price_nanousd=7, period_price_nanousd=100, included_conversations=0)
    who = choosing.customer("monthly")
    until(lambda: choosing.usage(who))
    version = choosing.account(who)["menu_version"]
    choosing.tier("monthly", price_nanousd=900, period_price_nanousd=100, included_conversations=0)
    account = choose(choosing, who, {"tier": "small"}).json()

    assert say(choosing, who).headers["x-tokencap-charge-nanousd"] == "7"
    assert (account["tier"], account["menu_version"]) == ("monthly", version)
    assert account["next"]["tier"] == "small"
    assert account["next"]["effective"] == account["period"]["end"]


def test_another_period_or_time_zone_keeps_what_was_used_of_it(choosing: Rig) -> None:
    choosing.tier("small", conversation_tokens_max=20, period_tokens_max=1_000, price_nanousd=1)
    who = choosing.customer("small", period="month")
    for _ in range(3):
        say(choosing, who)
    used = sum(record["billed_output_tokens"] for record in choosing.usage(who))
    for change in ({"period": "week"}, {"timezone": "Pacific/Kiritimati"}, {"period": "day", "timezone": "UTC"}):
        assert choosing.admin.patch(f"/admin/customers/{who.id}", json=change).status_code == 200
        period = choosing.account(who)["period"]
        began = datetime.fromisoformat(period["start"]).timestamp() * 1000
        in_period = [record for record in choosing.usage(who) if record["time"] >= began]

        assert period["tokens_used"] == sum(record["billed_output_tokens"] for record in in_period)
        assert period["tokens_used"] + period["tokens_remaining"] == 1_000
    assert used > 0


def test_new_customers_in_an_arm_choose_from_its_menu_and_are_charged_by_it(choosing: Rig) -> None:
    """Earlier customers keep the menu in force, which is public."""
    before = choosing.customer("small")
    version_of = choosing.account(before)["menu_version"]
    menu = choosing.admin.get(f"/admin/menus/{version_of}").json()
    choosing.tier("small", conversation_tokens_max=20, price_nanousd=3)
    dearer = choosing.admin.get(f"/admin/menus/{choosing.account(before)['menu_version']}").json()
    published = choosing.admin.post(f"/admin/menus/{menu['version']}/publish", json={"arms": {dearer["version"]: 1}})
    after = choosing.customer("small")

    assert published.status_code == 201, published.text
    assert published.json()["published"][-1]["arms"] == {dearer["version"]: 1}
    assert httpx.get(f"{choosing.url}/v1/menu").json()["version"] == menu["version"]
    for who, version, price in ((before, menu["version"], "1"), (after, dearer["version"], "3")):
        own = httpx.get(f"{choosing.url}/v1/account/menu", headers=who.headers).json()
        answer = say(choosing, who)
        assert (own["version"], answer.headers["x-tokencap-charge-nanousd"]) == (version, price)
        assert choose(choosing, who, {"tier": "large"}).json()["menu_version"] == version
        assert [record["menu_version"] for record in choosing.usage(who)] == [version]
