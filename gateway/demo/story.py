"""The demo from its first line to its last: publish, let customers choose and talk, settle, compare."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

import httpx

from gateway.demo.expectations import Conversations, Judgement, judge
from gateway.demo.ledger_check import Comparison, Ledger, compare
from gateway.demo.operator import Operator, answered
from gateway.demo.screen import Board
from gateway.demo.simulated_customers import people_of, visitor_of
from gateway.demo.traffic import Customer, Traffic, choose, held_tokens
from gateway.errors import StartupError
from gateway.simulator.model_server import Law
from pricing.market.market import read_market
from pricing.menus.menu import Menu
from pricing.report.menu_table import earning_lines, tier_lines

REFRESH_S = 1.0
SETTLED_S = 60.0


class Screen(Protocol):
    """The output of the demo."""

    def say(self, *lines: str) -> None:
        """Write lines that stay."""

    def show(self, board: Board, elapsed_s: float) -> None:
        """Write the present state."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The setting of the demo. ``law`` is in the model's time, of which ``speed`` seconds pass in one real second.

    ``menu`` is a computed menu, complete with its market, and ``market_file`` the file it was computed from.
    """

    url: str
    admin_token: str
    model_url: str
    menu: Mapping[str, Any]
    market_file: str
    law: Law
    speed: float
    now_ms: Callable[[], int]
    now_s: Callable[[], float]


def hurried(law: Law, speed: float) -> Law:
    """Return the law of a model that runs ``speed`` times as fast."""
    return replace(law, tokens_per_s=law.tokens_per_s * speed, first_token_s=law.first_token_s / speed)


async def run_story(stage: Stage, screen: Screen, with_traffic: bool, stop: asyncio.Event) -> bool:
    """Run the demo until ``stop`` is set; return whether both comparisons at its end agree.

    Raises:
        StartupError: the gateway refuses a request of the demo.
    """
    started_ms = stage.now_ms()
    # The connection stays on this machine: no proxy of the environment.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=stage.url, limits=limits, timeout=30, trust_env=False) as client:
        operator = Operator(client, stage.admin_token)
        menu = await operator.sell(stage.menu)
        customers, visitor = await _sign_up(stage, client, operator, menu)
        screen.say(*_welcome(stage, customers, visitor))
        board = Board([tier.name for tier in menu.tiers], menu.currency)
        for customer in customers:
            board.row(customer.tier).customers += 1
        everyone = [*customers, visitor]
        if with_traffic:
            chance = Random(stage.now_ms())  # noqa: S311 - a rhythm, not a secret
            traffic = Traffic(client, stage.law.model, stage.speed, chance, board)
            async with shown(stage, screen, board, client, everyone):
                await traffic.run(customers, stop)
        await stop.wait()
        screen.say("", "Stopping: waiting until every call is settled.", "")
        await settled(stage, client, everyone)
        judgement, comparison = await _compared(stage, operator, customers, started_ms)
        screen.say(*judgement.lines(), "", *comparison.lines())
        return judgement.agrees and comparison.agrees


async def _sign_up(
    stage: Stage, client: httpx.AsyncClient, operator: Operator, menu: Menu
) -> tuple[list[Customer], Customer]:
    """Give each person a key, let each choose from the menu, and return the buyers and the visitor.

    Raises:
        StartupError: no person buys a tier.
    """
    market = read_market(stage.menu["market"])
    known = await operator.customers()
    customers = []
    for person in (*people_of(market), visitor_of(market)):
        tier = person.choose(menu.tiers, stage.law)
        if tier is None:
            continue
        external_id = f"demo: {person.name}"
        if external_id not in known:
            known[external_id] = await operator.sign_up(person.name, external_id)
        customer = Customer(person, known[external_id], await operator.new_key(known[external_id]), tier.name)
        await choose(client, customer)
        customers.append(customer)
    if len(customers) < 2:
        raise StartupError("Nothing on the menu is worth its price to anyone.", exit_code=2)
    *buyers, visitor = customers
    return buyers, visitor


def entrance(stage: Stage, key: str) -> list[str]:
    """Return the addresses, the admin token, a customer's key, and a command that works as pasted."""
    body = {
        "model": stage.law.model,
        "stream": True,
        "messages": [{"role": "user", "content": "How long is a piece of string?"}],
    }
    curl = [
        *("curl", "-N", f"{stage.url}/v1/chat/completions"),
        *("-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"),
        *("-d", json.dumps(body)),
    ]
    return [
        f"Gateway         {stage.url}",
        f"Admin API       {stage.url}/openapi.json",
        f"Admin token     {stage.admin_token}",
        f"A customer key  {key}",
        "",
        shlex.join(curl),
        "",
    ]


def _welcome(stage: Stage, customers: list[Customer], visitor: Customer) -> list[str]:
    each_time = sum(customer.person.chooses_each_time for customer in customers)
    return [
        *entrance(stage, visitor.key),
        f"The market {stage.market_file} was priced, and menu {stage.menu['version']} is published:",
        *tier_lines(stage.menu),
        "",
        *earning_lines(stage.menu),
        "",
        f"{len(customers)} simulated customers have read the menu and taken what is best for each: "
        f"{len(customers) - each_time} for their account, {each_time} anew with each conversation.",
        f"Time runs {stage.speed:g} times as fast: the model speaks {stage.law.tokens_per_s:g} tokens a second of its "
        f"own, {stage.law.tokens_per_s * stage.speed:g} of ours. Nobody hangs up on an answer.",
        "",
    ]


@asynccontextmanager
async def shown(
    stage: Stage,
    screen: Screen,
    board: Board,
    client: httpx.AsyncClient,
    customers: list[Customer],
    every_s: float = REFRESH_S,
) -> AsyncIterator[None]:
    """Keep the board on the screen while the block runs, and show it once more at its end."""
    began = stage.now_s()

    async def show() -> None:
        held = dict.fromkeys({customer.tier for customer in customers}, 0)
        amounts = await asyncio.gather(*(held_tokens(client, customer) for customer in customers))
        for customer, tokens in zip(customers, amounts, strict=True):
            held[customer.tier] += tokens
        for tier, tokens in held.items():
            board.row(tier).held_tokens = tokens
        screen.show(board, stage.now_s() - began)

    async def keep_showing() -> None:
        while True:
            with suppress(StartupError):  # a figure that is missing now is shown the next time
                await show()
            await asyncio.sleep(every_s)

    showing = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        showing.cancel()
    await show()


async def settled(stage: Stage, client: httpx.AsyncClient, customers: list[Customer]) -> None:
    """Wait until the model has no open call and the gateway holds no tokens.

    Raises:
        StartupError: calls are still open after a minute.
    """
    deadline = stage.now_s() + SETTLED_S
    while (await counted(stage))["live"] or sum([await held_tokens(client, customer) for customer in customers]):
        if stage.now_s() > deadline:
            raise StartupError("Calls are still live a minute after the last one began.")
        await asyncio.sleep(REFRESH_S / 10)


async def _compared(
    stage: Stage, operator: Operator, customers: list[Customer], started_ms: int
) -> tuple[Judgement, Comparison]:
    """Read the ledger once, and compare it with the menu and with the model's own count."""
    prices = {tier["name"]: tier["price_nanousd"] for tier in stage.menu["tiers"]}
    observed, ledger = Conversations(prices, {customer.id for customer in customers}), Ledger()
    async for record in operator.usage(started_ms):
        observed.note(record)
        ledger.note(record)
    broken_off = {record["id"]: await counted(stage, record["id"]) for record in ledger.cut_short}
    return judge(stage.menu, observed), compare(ledger, await counted(stage), broken_off)


async def counted(stage: Stage, call: str | None = None) -> Any:
    """Return the model's own count, or its record of a call, None where it had no such call."""
    query = {} if call is None else {"call": call}
    async with httpx.AsyncClient(base_url=stage.model_url, trust_env=False) as client:
        response = await answered(client.get("/simulator/count", params=query))
    return response.json() if response.is_success else None
