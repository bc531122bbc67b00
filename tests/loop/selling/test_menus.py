"""A menu is computed, checked, published, sold and charged; each call keeps one version while menus change."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import httpx

from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from pricing.market.market import read_market
from pricing.menus.menu import Menu
from pricing.menus.menus import optimal_menu
from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until

MARKET: dict[str, Any] = {
    "types": [{"urgency_per_s": 0.005, "share": 0.5}, {"urgency_per_s": 0.4, "share": 0.5}],
    "value_nanousd": 20_000_000,
    "delay": {"family": "exponential"},
    "answer_length": {"family": "table", "tokens": [10, 50, 200], "probability": [0.4, 0.4, 0.2]},
    "tokens_per_s": 50,
    "first_token_s": 0.3,
    "cost_nanousd_per_token": 0,
    "currency": "USD",
}
STREAMS = 500


def menu_named(*names: str, value: int = 20_000_000) -> dict[str, Any]:
    """Return a certified menu of these tiers; another value of an answer makes other prices."""
    market = read_market({**MARKET, "value_nanousd": value})
    return optimal_menu(market, tiers=len(names), bill="conversation", names=names, created="2026-01-01T00:00:00Z")


def post(loop: Rig, menu: dict[str, Any]) -> httpx.Response:
    return loop.admin.post("/admin/menus", json=menu)


def put_in_force(loop: Rig, version: str, verb: str = "publish", **body: Any) -> httpx.Response:
    return loop.admin.post(f"/admin/menus/{version}/{verb}", json=body)


def test_a_menu_that_fails_its_certificate_cannot_be_published(loop: Rig) -> None:
    """A menu with one changed price, cap or share is refused with its violation, and nothing of it is kept."""
    good = menu_named("quick", "long")
    tampered = [copy.deepcopy(good) for _ in range(3)]
    tampered[0]["tiers"][0]["price_nanousd"] += 1
    tampered[1]["tiers"][0]["conversation_tokens_max"] -= 1
    tampered[2]["assignment"][0]["share"] = 0.4
    refusals = [post(loop, menu) for menu in tampered]

    assert [answer.status_code for answer in refusals] == [422] * 3
    assert all(answer.json()["violation"] for answer in refusals)
    assert loop.admin.get("/admin/menus").json()["data"] == []
    assert put_in_force(loop, good["version"]).status_code == 404
    assert httpx.get(f"{loop.url}/v1/menu").status_code == 404


def test_a_published_menu_shows_what_is_sold_and_nothing_of_why(loop: Rig) -> None:
    menu = menu_named("quick", "long")
    posted = post(loop, menu)
    published = put_in_force(loop, menu["version"])
    shown = httpx.get(f"{loop.url}/v1/menu").json()

    assert (posted.status_code, published.status_code) == (201, 201), published.text
    assert published.json()["in_force"]
    assert set(shown) == {"version", "created", "currency", "bill", "tiers"}
    assert shown["tiers"] == [tier.to_json() for tier in Menu.from_json(menu).tiers]
    assert "expected" not in str(shown)
    assert loop.admin.get(f"/admin/menus/{menu['version']}").json() == menu
    assert post(loop, menu).json()["code"] == "already_exists"


def test_a_tier_that_customers_have_does_not_vanish_without_a_move(loop: Rig) -> None:
    first, second = menu_named("quick", "long"), menu_named("all", value=30_000_000)
    for menu in (first, second):
        assert post(loop, menu).status_code == 201
    put_in_force(loop, first["version"])
    who = loop.customer("quick")
    refused = put_in_force(loop, second["version"])
    moved = put_in_force(loop, second["version"], moves={"quick": "all"})
    then = loop.account(who)["tier"]
    back = put_in_force(loop, second["version"], "rollback")

    assert (refused.status_code, list(refused.json()["tiers"])) == (409, ["quick"])
    assert (moved.status_code, then) == (201, "all")
    assert back.status_code == 201, back.text
    assert back.json()["version"] == first["version"]
    assert loop.account(who)["tier"] == "quick"


def test_a_menu_for_the_next_period_is_announced_and_not_yet_sold(loop: Rig) -> None:
    first, second = menu_named("quick", "long"), menu_named("quick", "long", value=30_000_000)
    for menu in (first, second):
        post(loop, menu)
    put_in_force(loop, first["version"])
    who = loop.customer("quick")
    put_in_force(loop, second["version"], effective="next_period")
    account = loop.account(who)

    assert account["menu_version"] == first["version"]
    assert account["next"] == {
        "tier": "quick",
        "menu_version": second["version"],
        "effective": account["period"]["end"],
    }


async def test_a_call_runs_and_is_billed_under_exactly_one_menu_version(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """500 streams run while a menu is published, a tier vanishes and comes back: charges follow from the version."""
    law = Law(tokens_per_s=400, first_token_s=0, lengths=Table((10, 50, 200), (0.4, 0.4, 0.2)))
    with rig(valkey_url, sqlite_url, tmp_path, gateways=2, law=law) as loop:
        first = menu_named("quick", "long")
        second = menu_named("quick", "long", value=30_000_000)
        third = menu_named("all", value=40_000_000)
        for menu in (first, second, third):
            assert post(loop, menu).status_code == 201
        put_in_force(loop, first["version"])
        customers = [loop.customer(tier) for tier in ("quick", "long") * 5]
        talking = asyncio.create_task(talk(loop, customers))
        for calls, version, verb, moves in (
            (100, second["version"], "publish", {}),
            (200, third["version"], "publish", {"quick": "all", "long": "all"}),
            (300, third["version"], "rollback", {"all": "long"}),
        ):
            await asyncio.to_thread(until, lambda calls=calls: loop.counted()["calls"] >= calls, 60)
            answer = await asyncio.to_thread(put_in_force, loop, version, verb, moves=moves)
            assert answer.status_code == 201, answer.text
        answers = await talking
        loop.until_nothing_is_held()
        records = {record["id"]: record for record in loop.usage()}

        assert len(records) == STREAMS
        sold = {menu["version"]: Menu.from_json(menu) for menu in (first, second, third)}
        assert {record["menu_version"] for record in records.values()} == set(sold)
        for answer in answers:
            record = records[answer["x-request-id"]]
            assert answer["x-tokencap-menu-version"] == record["menu_version"]
            assert answer["x-tokencap-tier"] == record["tier"]
            tier = sold[record["menu_version"]].tier(record["tier"])
            assert tier is not None
            assert record["charge_nanousd"] == (tier.price_nanousd if record["billed_output_tokens"] else 0)
            assert record["cap_tokens"] == min(tier.conversation_tokens_max or 16_384, 16_384)


async def talk(loop: Rig, customers: list[Sold]) -> list[httpx.Headers]:
    """Stream answers, fifty at a time, over all customers and gateways; return their headers."""
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    places = asyncio.Semaphore(50)
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=50), timeout=60) as client:

        async def call(number: int) -> httpx.Headers:
            who, url = customers[number % len(customers)], loop.urls[number % len(loop.urls)]
            async with places:
                answer = await client.post(f"{url}/v1/chat/completions", json=body, headers=who.headers)
            assert answer.status_code == 200, answer.text
            return answer.headers

        return await asyncio.gather(*(call(number) for number in range(STREAMS)))
