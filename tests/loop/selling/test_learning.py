"""A market is estimated from calls through the running gateway: customers talk and hang up, and a menu is drafted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx

from gateway.demo.estimate_check import earns
from gateway.demo.simulated_customers import Person, law_of, people_of
from pricing.certificate import verify
from pricing.market.market import Market, read_market
from pricing.menus.menu import Menu, Tier
from pricing.menus.menus import optimal_menu
from tests.loop.rig import Rig, rig
from tests.pricing.markets import market, types
from tests.waiting import until

MARKET = market(
    types=types((0.02, 1.5), (0.3, 0.7)),
    answer_length={"family": "exponential", "mean_tokens": 20},
    tokens_per_s=15,
    first_token_s=0.1,
)
TOKEN = b'"content":'
"""The bytes that each token of a streamed answer has once."""
GIVEN_AWAY = Tier("all", price_nanousd=1)
CUSTOMERS, CONVERSATIONS, AT_ONCE = 100, 12, 25
DEADLINE_S = 600
"""A limit for a run that hangs: a busy machine takes minutes."""
ASKED = {"value_nanousd": 20_000_000, "tiers": 2, "draws": 20, "cap_factor_max": 1e6, "price_factor_max": 1e6}


async def talk(loop: Rig, people: Sequence[Person]) -> dict[str, float]:
    """Run each customer's conversations until its patience ends; return each customer's urgency by its id.

    Patience is counted in tokens: on a busy machine, which notices late that time has passed, all types would leave alike.
    """
    chance, places = Random(1), asyncio.Semaphore(AT_ONCE)
    # No connection is kept: the server could close it just as a call takes it.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=loop.url, limits=limits, timeout=DEADLINE_S) as client:

        async def converse(headers: dict[str, str], patience_tokens: float) -> None:
            body = {"model": "aligned-1", "stream": True, "messages": [{"role": "user", "content": "Why?"}]}
            streaming = client.stream("POST", "/v1/chat/completions", json=body, headers=headers)
            async with places, streaming as answer:
                assert answer.status_code == 200
                seen = 0
                async for chunk in answer.aiter_bytes():
                    seen += chunk.count(TOKEN)
                    if seen > patience_tokens:
                        return

        callers = [(person, loop.customer("all")) for person in people]
        waits = [
            converse(who.headers, chance.expovariate(person.urgency_per_s) * MARKET["tokens_per_s"])
            for _ in range(CONVERSATIONS)
            for person, who in callers
        ]
        await asyncio.gather(*waits)
    return {who.id: person.urgency_per_s for person, who in callers}


def as_it_was(records: Sequence[dict[str, Any]], urgency_of: dict[str, float], pace: dict[str, float]) -> Market:
    """Return the market as it was on this machine: the rate at which each type left, which the gateway does not see.

    A busy machine is a slower market, and its customers leave at another rate per second of the gateway's clock.
    """
    rates = []
    for kind in MARKET["types"]:
        its = [record for record in records if urgency_of[record["customer"]] == kind["urgency_per_s"]]
        left = sum(record["finish"] == "disconnect" for record in its)
        rates.append(left / sum(record["duration_ms"] / 1000 for record in its))
    shares = [kind["share"] for kind in MARKET["types"]]
    return read_market({**MARKET, "types": types(rates, shares), **pace})


async def test_a_menu_made_of_what_customers_did_earns_most_of_what_can_be_earned(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """A tier that gives everything away leads to a certified menu that earns over 85 % of the true market's optimum."""
    people = people_of(read_market(MARKET), CUSTOMERS, hang_up=True)
    with rig(valkey_url, sqlite_url, tmp_path, law=law_of(read_market(MARKET))) as loop:
        loop.tier(GIVEN_AWAY.name, price_nanousd=GIVEN_AWAY.price_nanousd)
        urgency_of = await talk(loop, people)
        loop.until_nothing_is_held(DEADLINE_S)
        until(lambda: len(loop.usage()) == len(people) * CONVERSATIONS, DEADLINE_S)
        records = loop.usage()
        posted = loop.admin.post("/admin/pricing/runs", json=ASKED).raise_for_status().json()

        def run() -> Any:
            return loop.admin.get(f"/admin/pricing/runs/{posted['id']}").raise_for_status().json()

        until(lambda: run()["state"] not in ("queued", "running"), DEADLINE_S)
        done = run()

        assert done["state"] == "done", done["reason"]
        assert verify(done["draft"]).ok
        version, largest = done["draft"]["version"], done["draft"]["tiers"][-1]["name"]
        published = loop.admin.post(f"/admin/menus/{version}/publish", json={"moves": {"all": largest}})
        assert published.is_success, published.text
        assert httpx.get(f"{loop.url}/v1/menu").json()["version"] == version

    pace = {name: done["estimates"][name] for name in ("tokens_per_s", "first_token_s")}
    truth = as_it_was(records, urgency_of, pace)
    best = optimal_menu(truth, tiers=2, bill="conversation", names=None, created="2026-01-01T00:00:00Z")
    earned, _ = earns(Menu.from_json(done["draft"]), people_of(truth), law_of(truth))
    assert earned > 0.85 * best["totals"]["profit_nanousd"]
    assert earned > 1_000 * GIVEN_AWAY.price_nanousd
