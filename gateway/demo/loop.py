"""The complete loop, shown to the viewer: a bad menu, customers who choose and leave, an estimate, a better menu."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import httpx

from gateway.demo.estimate_check import learnt_lines, profit_lines
from gateway.demo.expectations import Conversations
from gateway.demo.ledger_check import Comparison, Ledger, compare
from gateway.demo.operator import Operator
from gateway.demo.screen import Board
from gateway.demo.simulated_customers import Person, people_of
from gateway.demo.story import Screen, Stage, counted, entrance, settled, shown
from gateway.demo.traffic import Customer, Traffic, choose, is_set_within
from gateway.errors import StartupError
from gateway.simulator.model_server import Law
from pricing.market.market import read_market
from pricing.menus.menu import Menu, Tier
from pricing.report.menu_table import tier_lines

TIERS = 3
CUSTOMERS = 60
EVERY_S = 48.0
"""The mean time from one conversation of a customer to its next, in the model's seconds, as in ``people_of``."""

TRIAL = "trial"
TRIAL_SHARE = 0.1
"""The part of the time in which everything is free, and customers learn how fast answers come."""

LEARN_SHARE = 0.55
"""The part of the time after which the menu is recomputed from the records."""

Price = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Prices a ``market.json``, in its own process."""

LOOK_S = 0.5
SHOW_EVERY_S = 5.0
FREELY = 1e6
"""The factor by which a new menu may differ from the menu in force, which is bad on purpose."""


@dataclass(slots=True)
class Account:
    """A simulated customer with its key; ``tier`` is the tier that it takes from the menu on sale, None for none."""

    person: Person
    id: str
    key: str
    tier: Tier | None = None

    def as_customer(self, tier: Tier) -> Customer:
        return Customer(self.person, self.id, self.key, tier.name)


class Loop:
    """One demo, from a trial over a bad menu to the comparison.

    ``market`` is the truth, which the gateway does not know. Customers choose by the pace that they observe, so that a
    busy machine makes a slower market, not a wrong market.
    """

    def __init__(self, stage: Stage, market: Mapping[str, Any], price: Price, screen: Screen) -> None:
        self._stage = stage
        self._market_json = dict(market)
        self._market = read_market(market)
        self._law = stage.law
        self._price = price
        self._screen = screen
        self._chance = Random(stage.now_ms())  # noqa: S311 - a rhythm, not a secret

    async def run(self, stop: asyncio.Event, seconds: float) -> bool:
        """Run until ``stop`` is set; return whether all charges are correct and the ledger agrees with the model.

        Raises:
            StartupError: the gateway refuses a request of the demo.
        """
        stage, started_ms, began = self._stage, self._stage.now_ms(), self._stage.now_s()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(base_url=stage.url, limits=limits, timeout=30, trust_env=False) as client:
            operator = Operator(client, stage.admin_token)
            accounts = await self._sign_up(operator)
            self._screen.say(*self._welcome(accounts))
            await self._try_out(client, operator, accounts, TRIAL_SHARE * seconds, stop)
            best, bad = await self._priced(operator)
            run = await self._learn(client, operator, bad, accounts, began + LEARN_SHARE * seconds, stop)
            self._screen.say(*self._learnt(run))
            good = await operator.on_sale()
            await self._talk(client, operator, good, accounts, stop)
            self._screen.say("", "Stopping: waiting until every call is settled.", "")
            await settled(stage, client, self._buyers(accounts))
            return await self._judged(operator, (bad, good), accounts, best, started_ms)

    async def _try_out(
        self,
        client: httpx.AsyncClient,
        operator: Operator,
        accounts: list[Account],
        seconds: float,
        stop: asyncio.Event,
    ) -> None:
        """Let every customer talk for free, and measure the pace of answers, including the machine's delays."""
        free = Tier(TRIAL)
        await operator.type_tier(free)
        for account in accounts:
            await operator.give_tier(account.id, TRIAL)
            account.tier = free
        customers = self._buyers(accounts)
        board = Board([TRIAL], self._market.currency)
        board.row(TRIAL).customers = len(customers)
        over = asyncio.Event()
        traffic = Traffic(client, self._stage.law.model, self._stage.speed, self._chance, board)
        talking = asyncio.create_task(traffic.run(customers, over))
        await is_set_within(stop, seconds)
        over.set()
        await talking
        self._law = await self._pace(operator)

    async def _pace(self, operator: Operator) -> Law:
        """Return the model's law with the pace in the records of streamed calls, in the model's time."""
        calls, waited_ms, tokens, spoke_ms = 0, 0, 0, 0
        async for record in operator.usage(0):
            if record["stream"] and record["ttft_ms"] is not None and record["output_tokens"] > 1:
                calls += 1
                waited_ms += record["ttft_ms"]
                tokens += record["output_tokens"] - 1
                spoke_ms += record["duration_ms"] - record["ttft_ms"]
        if not calls or not spoke_ms:
            return self._law
        a_token_s = spoke_ms / 1000 / tokens * self._stage.speed
        first_s = max(0.0, waited_ms / 1000 / calls * self._stage.speed - a_token_s)
        return replace(self._law, tokens_per_s=1 / a_token_s, first_token_s=first_s)

    async def _priced(self, operator: Operator) -> tuple[Mapping[str, Any], Menu]:
        """Price the true market and the guessed market, sell the guess; return the best menu and the menu on sale."""
        pace = {"tokens_per_s": self._law.tokens_per_s, "first_token_s": self._law.first_token_s}
        types = [{"urgency_per_s": max(self._market.urgency_per_s), "share": 1}]
        guess = await self._price({**self._market_json, **pace, "types": types})
        sold = await operator.sell(guess, {TRIAL: guess["tiers"][-1]["name"]})
        self._screen.say(
            f"Answers begin after {self._law.first_token_s:.2g} s and come at {self._law.tokens_per_s:.0f} tokens a "
            f"second of the model's time, {self._stage.speed:g} of which pass in one of ours.",
            "The operator, who does not know its customers, thinks that all are as hurried as the most hurried of them, "
            "and sells what would be best then:",
            *tier_lines(guess),
            "",
        )
        return await self._price({**self._market_json, **pace}), sold

    async def _sign_up(self, operator: Operator) -> list[Account]:
        known = await operator.customers()
        accounts = []
        for person in people_of(self._market, CUSTOMERS, every_s=EVERY_S, hang_up=True):
            external_id = f"demo: {person.name}"
            if external_id not in known:
                known[external_id] = await operator.sign_up(person.name, external_id)
            accounts.append(Account(person, known[external_id], await operator.new_key(known[external_id])))
        return accounts

    async def _learn(
        self,
        client: httpx.AsyncClient,
        operator: Operator,
        bad: Menu,
        accounts: list[Account],
        until_s: float,
        stop: asyncio.Event,
    ) -> Any:
        """Let customers talk under the bad menu, recompute it meanwhile, and return the run, None if stopped before."""
        over = asyncio.Event()
        talking = asyncio.create_task(self._talk(client, operator, bad, accounts, over))
        try:
            if await is_set_within(stop, max(0.0, until_s - self._stage.now_s())):
                return None
            run_input = {
                "tiers": TIERS,
                "publish": "now",
                "confidence": 0.5,
                "cap_factor_max": FREELY,
                "price_factor_max": FREELY,
            }
            run_id = await operator.recompute(run_input)
            run = await operator.run(run_id)
            while run["state"] in ("queued", "running") and not await is_set_within(stop, LOOK_S):
                run = await operator.run(run_id)
            return run
        finally:
            over.set()
            await talking

    async def _talk(
        self, client: httpx.AsyncClient, operator: Operator, menu: Menu, accounts: list[Account], stop: asyncio.Event
    ) -> None:
        """Let every customer choose from a menu, and let the buyers talk until ``stop`` is set."""
        board = Board([tier.name for tier in menu.tiers], menu.currency)
        for account in accounts:
            account.tier = account.person.choose(menu.tiers, self._law)
            if account.tier is None:
                await operator.give_tier(account.id, None)
        customers = self._buyers(accounts)
        if not customers:
            raise StartupError("Nothing on the menu is worth its price to anyone.", exit_code=2)
        for customer in customers:
            await choose(client, customer)
            board.row(customer.tier).customers += 1
        traffic = Traffic(client, self._stage.law.model, self._stage.speed, self._chance, board)
        async with shown(self._stage, self._screen, board, client, customers, SHOW_EVERY_S):
            await traffic.run(customers, stop)

    def _buyers(self, accounts: Sequence[Account]) -> list[Customer]:
        return [account.as_customer(account.tier) for account in accounts if account.tier is not None]

    def _welcome(self, accounts: Sequence[Account]) -> list[str]:
        return [
            *entrance(self._stage, accounts[0].key),
            f"{len(accounts)} customers of {self._stage.market_file} talk; they take what is best for each, and hang up "
            "when their patience ends. At first everything is free.",
            "",
        ]

    def _learnt(self, run: Mapping[str, Any] | None) -> list[str]:
        if run is None or run["finished"] is None:
            return ["", "Stopped before a menu was learnt."]
        estimated = run["estimates"]
        lines = [] if estimated is None else learnt_lines(estimated, self._market, self._law, self._stage.speed)
        if run["published"] is None:
            return ["", *lines, "", f"The menu in force stays. {run['reason']}", ""]
        return ["", *lines, "", "The menu computed from it, certified and published:", *tier_lines(run["draft"]), ""]

    async def _judged(
        self,
        operator: Operator,
        menus: tuple[Menu, Menu],
        accounts: list[Account],
        best: Mapping[str, Any],
        started_ms: int,
    ) -> bool:
        """Read the ledger once; show each menu's profit, in it and by the true market; compare it with the model."""
        people = [account.person for account in accounts]
        ids = {account.id for account in accounts}
        observed = [Conversations({tier.name: tier.price_nanousd for tier in menu.tiers}, ids) for menu in menus]
        ledger = Ledger()
        async for record in operator.usage(started_ms):
            ledger.note(record)
            for menu, conversations in zip(menus, observed, strict=True):
                if record["menu_version"] == menu.version:
                    conversations.note(record)
                    break
        self._screen.say(*profit_lines(menus, observed, people, self._law, best), "")
        mischarged = [call for conversations in observed for call in conversations.mischarged]
        if mischarged:
            self._screen.say(f"{len(mischarged)} conversations were not charged their tier's price.")
        comparison = await self._books(ledger)
        self._screen.say(*comparison.lines())
        return comparison.agrees and not mischarged

    async def _books(self, ledger: Ledger) -> Comparison:
        broken_off = {record["id"]: await counted(self._stage, record["id"]) for record in ledger.cut_short}
        return compare(ledger, await counted(self._stage), broken_off)
