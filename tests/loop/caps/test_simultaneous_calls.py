"""Of 400 simultaneous calls under a quota that fits exactly sixteen, sixteen are served, and not one token more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from gateway.ledger.database import Database
from gateway.ledger.read.queries import totals
from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.loop.rig import Rig, Sold, clients, rig

EXACTLY_THE_CAP = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((600,), (1.0,)))
CALLS, SERVED, CAP = 400, 16, 600


async def herd(loop: Rig, who: Sold) -> list[httpx.Response]:
    """Send all calls at once, spread over the gateways, every second one a stream."""
    async with clients(CALLS, timeout=60, headers=who.headers) as ours:

        async def call(number: int) -> httpx.Response:
            url = loop.urls[number % len(loop.urls)] + "/v1/chat/completions"
            messages = [{"role": "user", "content": "Hello"}]
            body = {"model": "aligned-1", "messages": messages, "stream": number // 2 % 2 == 0}
            return await ours[number % len(ours)].post(url, json=body)

        return await asyncio.gather(*(call(number) for number in range(CALLS)))


@pytest.mark.parametrize(("gateways", "batches"), [(1, True), (2, True), (2, False)])
async def test_never_one_token_over_a_quota_at_any_concurrency(
    gateways: int, batches: bool, valkey_url: str, ledger_url: str, tmp_path: Path
) -> None:
    with rig(valkey_url, ledger_url, tmp_path, gateways=gateways, law=EXACTLY_THE_CAP, redis_batches=batches) as loop:
        loop.tier("small", conversation_tokens_max=CAP, period_tokens_max=10_000, price_nanousd=1)
        who = loop.customer("small")
        answers = await herd(loop, who)

        served = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(served) == SERVED
        assert {answer.status_code for answer in refused} == {429}
        assert {answer.json()["error"]["code"] for answer in refused} == {"insufficient_quota"}
        assert {answer.headers["x-should-retry"] for answer in refused} == {"false"}
        assert loop.counted()["calls"] == SERVED, "a refused call never reaches the upstream"
        loop.until_nothing_is_held()
        period = loop.account(who)["period"]
        assert period["tokens_used"] == SERVED * CAP
        assert period["tokens_used"] + period["tokens_held"] + period["tokens_remaining"] == 10_000
        assert len(loop.usage(who)) == SERVED
        assert loop.counted()["completion_tokens"] == SERVED * CAP
        book = Database(loop.settings.ledger_url)
        assert totals(book).billed_output_tokens == SERVED * CAP
        book.close()
