"""The demo's live traffic: simulated customers who start conversations at random moments and read the answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from gateway.demo.operator import answered
from gateway.demo.screen import Board, Row
from gateway.demo.simulated_customers import Person
from gateway.errors import StartupError

CALL_S = 300.0
LIVE_MOST = 64
"""The most conversations at a time, where a machine is too slow for the requested speed."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A person who has signed up, with its key and the tier that it takes."""

    person: Person
    id: str
    key: str
    tier: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def first_call_headers(self) -> dict[str, str]:
        """The headers of a conversation's first call, with the tier if the customer names it each time."""
        return self.headers | ({"x-tokencap-tier": self.tier} if self.person.chooses_each_time else {})


class Traffic:
    """Keeps customers talking until it is stopped.

    Args:
        client: its base URL is the gateway's.
        model: the model that customers request.
        speed: how many of the model's seconds pass in one real second.
        chance: draws the pauses and the next customer.
        board: records every call.
    """

    def __init__(self, client: httpx.AsyncClient, model: str, speed: float, chance: Random, board: Board) -> None:
        self._client = client
        self._model = model
        self._speed = speed
        self._chance = chance
        self._board = board

    async def run(self, customers: Sequence[Customer], stop: asyncio.Event) -> None:
        """Let every customer talk; once ``stop`` is set no conversation begins, and those that have begun finish.

        All customers' independent random starts together form one random sequence, in which each start belongs to a
        customer with a probability proportional to the customer's rate. The next customer is drawn only once there is
        room, so a machine that is too slow delays all alike and changes no tier's share of the conversations.
        """
        rates = [customer.person.conversations_per_s for customer in customers]
        starts_per_s = sum(rates) * self._speed
        talking: set[asyncio.Task[None]] = set()
        while not await is_set_within(stop, self._chance.expovariate(starts_per_s)):
            if len(talking) >= LIVE_MOST:
                await asyncio.wait(talking, return_when=asyncio.FIRST_COMPLETED)
            [customer] = self._chance.choices(customers, rates)
            conversation = asyncio.create_task(self._converse(customer))
            talking.add(conversation)
            conversation.add_done_callback(talking.discard)
        await asyncio.gather(*talking)

    async def _converse(self, customer: Customer) -> None:
        """Ask one question, and read the answer to its end or its cap."""
        row = self._board.row(customer.tier)
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": f"{customer.person.name} would like to know."}],
        }
        if customer.person.is_streaming:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = customer.first_call_headers
        try:
            response = await self._read_answer(customer.person, body, headers)
        except TimeoutError:
            row.calls += 1
            row.left += 1
            return
        except httpx.TransportError as error:
            row.refusals[type(error).__name__] += 1
            return
        if not response.is_success:
            row.refusals[_code(response)] += 1
        elif customer.person.is_streaming:
            _note_stream(row, response.text)
        else:
            _note_answer(row, response)

    async def _read_answer(self, person: Person, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        """Return the answer, read to its end.

        Raises:
            TimeoutError: the customer's patience ended first. It hangs up only after the answer has begun: the gateway
                has no record of a call without an answer, and the model has.
        """
        patience = self._patience_s(person)
        until = None if patience is None else asyncio.get_running_loop().time() + patience
        request = self._client.stream("POST", "/v1/chat/completions", json=body, headers=headers, timeout=CALL_S)
        async with request as response, asyncio.timeout_at(until):
            await response.aread()
        return response

    def _patience_s(self, person: Person) -> float | None:
        """Return after how many real seconds a customer hangs up on an answer; None for never."""
        return self._chance.expovariate(person.urgency_per_s) / self._speed if person.hangs_up else None


async def choose(client: httpx.AsyncClient, customer: Customer) -> None:
    """Set the customer's tier for its account, unless it names a tier with each conversation.

    Raises:
        StartupError: the gateway refuses, or does not answer.
    """
    if customer.person.chooses_each_time:
        return
    body = {"tier": customer.tier}
    response = await answered(client.put("/v1/account/tier", json=body, headers=customer.headers))
    if not response.is_success:
        raise StartupError(f"{customer.person.name} was refused the tier {customer.tier}: {response.text[:300]}")


async def held_tokens(client: httpx.AsyncClient, customer: Customer) -> int:
    """Return how many tokens the gateway has set aside for a customer's live calls.

    Raises:
        StartupError: the gateway does not answer.
    """
    response = await answered(client.get("/v1/account", headers=customer.headers))
    return int(response.json()["period"]["tokens_held"]) if response.is_success else 0


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    """Return whether an event is set now or within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _note_answer(row: Row, response: httpx.Response) -> None:
    answer = response.json()
    charge = response.headers.get("x-tokencap-charge-nanousd")
    _note(row, answer["choices"][0]["finish_reason"], answer["usage"], charge)


def _note_stream(row: Row, text: str) -> None:
    """Note a stream by its last chunks: the finish reason, the usage, and ``[DONE]``."""
    chunks = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if len(chunks) < 3 or chunks[-1] != "[DONE]":
        row.refusals["broken_stream"] += 1
        return
    ending, usage = (json.loads(chunk) for chunk in chunks[-3:-1])
    _note(row, ending["choices"][0]["finish_reason"], usage["usage"], usage["tokencap"]["charge_nanousd"])


def _note(row: Row, finish: str, usage: dict[str, Any], charge_nanousd: str | int | None) -> None:
    """Note a complete answer; a charge that was not known in time is not shown here, but is in the ledger."""
    row.calls += 1
    row.capped += finish == "length"
    row.tokens += usage["completion_tokens"]
    row.charge_nanousd += int(charge_nanousd or 0)


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)
