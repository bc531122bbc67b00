"""The ledger loses nothing when a gateway is restarted, killed under load, or served by two workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from gateway.holds.store.clients import connect
from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law, build
from tests.buckets import all_in_flight
from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.gateway.cli.conftest import directory
from tests.loop.caps.test_simultaneous_calls import CALLS, CAP, EXACTLY_THE_CAP, SERVED, herd
from tests.loop.rig import Rig, Sold
from tests.serving import served
from tests.waiting import until

__all__ = ["directory"]

LEASE_S = 2
BODY: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}


def complete(loop: Rig, who: Sold) -> dict[str, Any]:
    answer = httpx.post(f"{loop.url}/v1/chat/completions", json={**BODY, "max_tokens": 5}, headers=who.headers)
    assert answer.status_code == 200, answer.text
    completion: dict[str, Any] = answer.json()
    return completion


def redis_url(running: Serving) -> str:
    socket = running.data.remembered().socket
    assert socket is not None
    return f"unix://{socket}"


def open_holds(url: str) -> int:
    with connect(url) as client:
        return sum(map(len, all_in_flight(client).values()))


def test_customers_keys_tiers_used_tokens_and_records_are_there_after_a_restart(directory: Path) -> None:
    with serving(directory) as running:
        token = running.admin_token()
        loop = running.rig(token)
        loop.tier("small", conversation_tokens_max=50, period_tokens_max=1_000, price_nanousd=3)
        who = loop.customer("small")
        complete(loop, who)
        before = (loop.account(who), loop.usage(), loop.admin.get("/admin/tiers").json())
        assert running.stop() == 0
    with serving(directory) as running:
        loop = running.rig(token)

        assert (loop.account(who), loop.usage(), loop.admin.get("/admin/tiers").json()) == before
        complete(loop, who)
        assert len(loop.usage(who)) == 2


def test_a_repetition_after_a_restart_is_sent_the_kept_answer(directory: Path) -> None:
    def say(loop: Rig, who: Sold) -> httpx.Response:
        headers = {**who.headers, "idempotency-key": "once"}
        return httpx.post(f"{loop.url}/v1/chat/completions", json={**BODY, "max_tokens": 5}, headers=headers)

    with serving(directory) as running:
        token = running.admin_token()
        loop = running.rig(token)
        loop.tier("small", conversation_tokens_max=50, price_nanousd=3)
        who = loop.customer("small")
        first = say(loop, who)
        assert running.stop() == 0
    with serving(directory) as running:
        loop = running.rig(token)
        again = say(loop, who)

        assert (first.status_code, again.status_code) == (200, 200)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.content, again.headers["x-request-id"]) == (first.content, first.headers["x-request-id"])
        assert [record["charge_nanousd"] for record in loop.usage(who)] == [3]


async def load(loop: Rig, who: Sold, seconds: float) -> None:
    """Call without end from fifty customers at once, until the gateway is gone."""
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=50), headers=who.headers, timeout=10) as client:

        async def call(number: int) -> None:
            while True:
                body = {**BODY, "stream": number % 2 == 0}
                await client.post(f"{loop.url}/v1/chat/completions", json=body)

        callers = [asyncio.create_task(call(number)) for number in range(50)]
        await asyncio.wait(callers, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def test_killed_under_load_nothing_is_held_after_a_lease_and_every_answered_call_has_one_record(
    directory: Path,
) -> None:
    law = Law(tokens_per_s=100, first_token_s=0, mean_tokens=60)
    with served(build(law)) as model:
        settings: dict[str, Any] = {"upstream_url": f"{model}/v1", "lease_s": LEASE_S, "workers": 2}
        with serving(directory, **settings) as running:
            token = running.admin_token()
            loop = running.rig(token)
            loop.tier("open", period_tokens_max=10_000_000)
            who = loop.customer("open")
            loading = asyncio.create_task(load(loop, who, 30))
            await asyncio.to_thread(until, lambda: count(model)["finished"] > 100, 30)
            for child in running.children():
                os.kill(child.process.pid, signal.SIGKILL)
            running.process.kill()
            running.process.wait()
            await loading
        with serving(directory, **settings) as running:
            until(lambda: open_holds(redis_url(running)) == 0, deadline_s=2 * LEASE_S + 5)
            loop = running.rig(token)
            records = loop.usage(who)

            assert loop.account(who)["period"]["tokens_held"] == 0
            assert max(Counter(record["id"] for record in records).values()) == 1
            of_call = {record["id"]: record for record in records}
            for record in records:
                call = httpx.get(f"{model}/simulator/count", params={"call": record["id"].removeprefix("req_")})
                if call.status_code == 404:  # reserved, then killed before the upstream was asked
                    assert (record["finish"], record["output_tokens"]) == ("recovered", 0)
                else:
                    sent = call.json()["completion_tokens"]
                    assert record["finish"] == "recovered" or record["output_tokens"] == sent
                    assert record["output_tokens"] <= sent
            assert sum(record["id"] in of_call for record in records) >= count(model)["calls"]
            used = loop.account(who)["period"]["tokens_used"]
            assert used == sum(record["billed_output_tokens"] for record in records)


def count(model: str) -> dict[str, Any]:
    counted: dict[str, Any] = httpx.get(f"{model}/simulator/count").json()
    return counted


async def test_two_workers_share_one_quota_exactly(directory: Path) -> None:
    with served(build(EXACTLY_THE_CAP)) as model, serving(directory, upstream_url=f"{model}/v1", workers=2) as running:
        loop = running.rig(running.admin_token())
        loop.tier("small", conversation_tokens_max=CAP, period_tokens_max=10_000, price_nanousd=1)
        who = loop.customer("small")
        answers = await herd(loop, who)

        assert Counter(answer.status_code for answer in answers) == {200: SERVED, 429: CALLS - SERVED}
        assert count(model)["calls"] == SERVED
        until(lambda: open_holds(redis_url(running)) == 0)
        assert loop.account(who)["period"]["tokens_used"] == SERVED * CAP


def test_the_sums_by_export_by_ledger_and_by_the_model_are_the_same(directory: Path) -> None:
    law = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((3, 30, 300), (0.3, 0.4, 0.3)))
    with served(build(law)) as model, serving(directory, upstream_url=f"{model}/v1") as running:
        loop = running.rig(running.admin_token())
        loop.tier("small", conversation_tokens_max=100, price_nanousd=7, input_nanousd_per_mtok=1_000)
        customers = [loop.customer("small") for _ in range(3)]
        for number in range(60):
            body = {**BODY, "stream": number % 2 == 0, "n": 1 + number % 3}
            who = customers[number % len(customers)]
            httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=who.headers).raise_for_status()
        records = loop.usage()
        span = {"format": "jsonl", "from": "2020-01-01", "to": "2100-01-01", "open": "true"}
        by_rest = loop.admin.get("/admin/exports", params=span).raise_for_status().text.splitlines()
        words = ("export", "--format", "jsonl", "--from", "2020-01-01", "--to", "2100-01-01", "--open", "--out", "-")
        by_command: subprocess.CompletedProcess[str] = tokencap(directory, *words)

        assert by_command.returncode == 0, by_command.stderr
        assert by_command.stdout.splitlines() == by_rest
        assert len(by_rest) == len(records) == count(model)["calls"] == 60
        counted = count(model)
        assert sum(record["output_tokens"] for record in records) == counted["completion_tokens"]
        assert sum(record["input_tokens"] for record in records) == counted["prompt_tokens"]
        assert tokencap(directory, "ledger", "verify").returncode == 0
