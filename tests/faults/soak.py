"""``make soak``: calls, half of them with a fault, while processes are killed; then ledger and truth are compared."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import httpx

from gateway.holds.store.clients import connect
from gateway.runtime.orphans import VALKEY
from tests.faults.calls import ALWAYS, AS_ASKED, body, faulty_loop
from tests.faults.crowds import fail, herd, largest_hold
from tests.faults.oracle import Findings, Heard, Outages, compare
from tests.faults.plans import Plan, plans
from tests.faults.truth import Script, Truth
from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.loop.recovery.test_restart import open_holds, redis_url
from tests.loop.rig import Rig, Sold
from tests.servers import short_directory
from tests.serving import served
from tests.waiting import until

LEASE_S = 2.0
AT_ONCE = 60
SCARCE_TOKENS = 12_000
CAPPED_TOKENS = 90
ROLES = ("worker", VALKEY, "bookkeeper")
SETTINGS = {"lease_s": LEASE_S, "workers": 2, "first_token_deadline_s": 5.0, "idle_deadline_s": 3.0}
WAYS = {ALWAYS: {"call_deadline_s": 60}, AS_ASKED: {"call_deadline_s": 15}}
"""How the upstream is asked. A call waits for the head of a whole answer up to its deadline, and some never arrive."""

CROWDED = {"first_token_deadline_s": 2.0, "call_deadline_s": 15.0, "lease_s": 10.0, "write_deadline_s": 60.0}
QUOTA = 10_000
FREED_S = 2.0
AGAIN_S = 0.2
UP_S = 60.0


@dataclass
class Soak:
    """One run: its plans, what callers received, and which processes were killed when."""

    running: Serving
    loop: Rig
    truth: Truth
    way: str
    sold: dict[str, Sold]
    chance: random.Random
    received: dict[str, Heard] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    outages: list[tuple[float, float]] = field(default_factory=list)
    done: int = 0

    async def load(self, calls: int, kills: int) -> None:
        """Make every call, ``AT_ONCE`` at a time, and kill processes at random moments in between."""
        waiting = plans(calls, self.chance)
        moments = sorted(self.chance.randrange(calls) for _ in range(kills))
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=70) as client:
            killing = asyncio.create_task(self._kill_at(moments))

            async def caller() -> None:
                for plan in waiting:
                    await self._call(client, plan)
                    self.done += 1
                    if self.done % 500 == 0:
                        say(f"{self.done} calls, {sum(self.kills.values())} kills")

            await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
            await killing

    async def _call(self, client: httpx.AsyncClient, plan: Plan) -> None:
        """Make one call; repeat it while nobody serves."""
        self.faults[plan.fault or "none"] += 1
        while not await self._answered(client, plan):
            await asyncio.sleep(AGAIN_S)

    async def _answered(self, client: httpx.AsyncClient, plan: Plan) -> bool:
        request = body(plan.script, stream=plan.stream, n=plan.choices)
        url, call, status, received, was_whole = f"{self.loop.url}/v1/chat/completions", "", 0, b"", False
        headers = self.sold[plan.tier].headers
        try:
            async with client.stream("POST", url, json=request, headers=headers) as answer:
                call, status = answer.headers["x-request-id"], answer.status_code
                async for piece in answer.aiter_raw():
                    received += piece
                    if plan.leaves_after is not None and received.count("ü".encode()) >= plan.leaves_after:
                        break
                else:
                    was_whole = status == 200 and (not plan.stream or b"[DONE]" in received)
        except httpx.TransportError:
            if not call:
                return False
        self.statuses[status] += 1
        self.received[call] = Heard(plan, call, received.count("ü".encode()), status, was_whole)
        return status != 503

    async def _kill_at(self, moments: list[int]) -> None:
        """Kill a random running process after each of these numbers of calls."""
        for moment in moments:
            while self.done < moment:
                await asyncio.sleep(0.01)
            victims = [child for child in self.running.children() if child.process.is_running()]
            victim = self.chance.choice([child for child in victims if child.role in ROLES])
            with suppress(ProcessLookupError):
                os.kill(victim.process.pid, signal.SIGKILL)
            self.kills[victim.role] += 1
            if victim.role == VALKEY:
                await self._outage()

    async def _outage(self) -> None:
        """Record for how long Valkey is unavailable."""
        began = time.monotonic()
        await asyncio.to_thread(until, self._valkey_answers, UP_S)
        self.outages.append((began, time.monotonic()))

    def _valkey_answers(self) -> bool:
        try:
            with connect(redis_url(self.running)) as client:
                return bool(client.ping())
        except Exception:  # noqa: BLE001 - whatever the error is, Valkey is unavailable
            return False

    def settle_down(self) -> float:
        """Wait until everything is up and nothing is held; return the seconds that holds lasted after start-up."""
        roles = {"worker": 2, VALKEY: 1, "bookkeeper": 1}
        until(lambda: all(len(self._alive(role)) == count for role, count in roles.items()), UP_S)
        until(self._valkey_answers, UP_S)
        until(self._is_live, UP_S)
        began = time.monotonic()
        with suppress(TimeoutError):
            until(lambda: open_holds(redis_url(self.running)) == 0, 2 * LEASE_S + 10)
        return time.monotonic() - began

    def _alive(self, role: str) -> list[int]:
        return [child.process.pid for child in self.running.children(role) if child.process.is_running()]

    def _is_live(self) -> bool:
        try:
            return httpx.get(f"{self.loop.url}/readyz", timeout=2).is_success
        except httpx.TransportError:
            return False

    def judge(self, settling_s: float) -> tuple[Findings, int]:
        """Return the findings, and how many holds leaked."""
        leaked = open_holds(redis_url(self.running))
        records = self.loop.usage()
        found = compare(records, self.truth.calls, self.received, Outages(tuple(self.outages)), self.way)
        if leaked:
            found.breaches.append(f"{leaked} holds are left {settling_s:.1f} s after everything was up")
        for who in self.sold.values():
            period = self.loop.account(who)["period"]
            used = sum(record["billed_output_tokens"] for record in records if record["customer"] == who.id)
            most, left = period["tokens_max"], period["tokens_remaining"]
            if most is not None and period["tokens_used"] + period["tokens_held"] + left != most:
                found.breaches.append(f"{who.id}: granted is not used + held + remaining: {period}")
            if period["tokens_used"] != used or (most is not None and used > most):
                found.breaches.append(f"{who.id}: {used} in the ledger, {period} in the account")
        verified = tokencap(self.running.data.path, "ledger", "verify")
        if verified.returncode:
            found.breaches.append(verified.stderr.strip())
        return found, leaked


def crowds(calls: int, way: str) -> list[str]:
    """Have one crowd fail upstream and another use up a quota, at three gateways; return the breaches."""
    settings = {"gateways": 3, "upstream_streams": way, **CROWDED}
    with short_directory() as directory, faulty_loop(directory, **settings) as faulty:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        breaches = []
        who = faulty.loop.customer("open")
        failed = asyncio.run(fail(faulty, who, calls))
        with suppress(TimeoutError):
            until(lambda: faulty.loop.open_holds() == 0, FREED_S)
        left = faulty.loop.open_holds()
        if left or faulty.post(who, Script()).status_code != 200:
            breaches.append(f"{left} holds are left by failing calls, or the next call is refused")
        faulty.loop.tier("herd", period_tokens_max=QUOTA, conversation_tokens_max=largest_hold(), price_nanousd=1)
        who = faulty.loop.customer("herd")
        herded = asyncio.run(herd(faulty, who, calls // 5))
        faulty.loop.until_nothing_is_held()
        used = faulty.loop.account(who)["period"]["tokens_used"]
        billed = sum(row["billed_output_tokens"] for row in faulty.loop.usage(who))
        if not QUOTA - largest_hold() <= used == billed <= QUOTA:
            breaches.append(f"a herd used {used} and was billed {billed}")
        say(f"failing    {failed.total()} calls, {left} holds left {FREED_S:g} s after the last")
        say(f"herd       {herded.total()} calls at a quota of {QUOTA}: {used} tokens used, {herded[200]} served")
        return breaches


def soak(calls: int, kills: int, seed: int, way: str) -> list[str]:
    """Run a soak, print its report, and return the breaches."""
    say(f"asked      {way}")
    began, truth = time.monotonic(), Truth()
    with ExitStack() as stack:
        model = stack.enter_context(served(truth))
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        directory = stack.enter_context(short_directory()) / "data"
        settings = {"upstream_streams": way, **SETTINGS, **WAYS[way]}
        running = stack.enter_context(serving(directory, upstream_url=f"{model}/v1", **settings))
        loop = running.rig(running.admin_token())
        loop.tier("open", period_tokens_max=10**9)
        loop.tier("capped", conversation_tokens_max=CAPPED_TOKENS, price_nanousd=1_000)
        loop.tier("scarce", period_tokens_max=SCARCE_TOKENS)
        sold = {tier: loop.customer(tier) for tier in ("open", "capped", "scarce")}
        run = Soak(running, loop, truth, way, sold, random.Random(seed))
        asyncio.run(run.load(calls, kills))
        settling_s = run.settle_down()
        found, leaked = run.judge(settling_s)
        say(report(run, found, leaked, settling_s, time.monotonic() - began))
        return found.breaches


def report(run: Soak, found: Findings, leaked: int, settling_s: float, took_s: float) -> str:
    """Return the report of a run as text."""
    killed = ", ".join(f"{count} {role}" for role, count in sorted(run.kills.items())) or "none"
    faulty = sum(count for fault, count in run.faults.items() if fault != "none")
    lines = [
        f"calls      {sum(run.faults.values())} planned, {len(run.truth.calls)} reached the upstream, {took_s:.0f} s",
        f"faults     {faulty} calls, {len(run.faults) - 1} kinds; kill -9: {killed}",
        f"statuses   {', '.join(f'{count} x {status}' for status, count in sorted(run.statuses.items()))}",
        f"tokens     {sum(told.tokens for told in run.truth.calls.values())} made, {found.tokens} billed",
        f"records    {found.records}, of them {found.recovered} recovered, {found.corrections} corrections",
        f"lost       {found.lost} records; {found.tokens_lost} tokens of killed workers since their last renewal",
        f"doubled    {found.doubled}",
        f"leaked     {leaked} holds; the last one was gone {settling_s:.1f} s after everything was up",
        f"breaches   {len(found.breaches)}",
        *(f"  {breach}" for breach in found.breaches),
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), help="of asking the upstream")
    arguments = parser.parse_args()
    breaches = []
    for way in arguments.ways:
        breaches += soak(arguments.calls, arguments.kills, arguments.seed, way) + crowds(arguments.calls, way)
    say(f"{len(breaches)} breaches." if breaches else "Every promise held.")
    sys.exit(bool(breaches))


if __name__ == "__main__":
    main()
