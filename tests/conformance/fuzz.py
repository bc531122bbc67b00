"""Sends odd requests, then compares what the model received, what is on record, and what callers were answered.

``python -m tests.conformance.fuzz --cases 200000 --transcripts 200000 --calls 20000`` is the long run: requests of
callers, mutated answers of upstreams (``tests/wire``), and calls of a caller who hangs up wherever that pays
(``tests/faults/adversary.py``). It prints its findings and exits with 1 for a breach.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.simulator.model_server import build as build_simulator
from tests.conformance.cases import BODIES, LIMITS, Case, case
from tests.faults.adversary import play_all
from tests.loop.rig import FAST, Rig, rig
from tests.servers import short_directory, valkey_in
from tests.serving import call_id
from tests.wire.fuzz import run_all

MULTIPLIES = ("n", "best_of", "n_cmpl")
TOKEN_LIMITS = tuple(name for name in LIMITS if name not in (*MULTIPLIES, "min_tokens"))

PART = 3_000
CALLERS = 8
"""Simultaneous callers."""

NOT_HTTP = b"Invalid HTTP request received."
"""The server's own answer to bytes that are no HTTP request."""


class Witness:
    """Passes calls to the simulated model and remembers the limits of each."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self.unnamed = 0
        """Calls without a request id of the gateway."""
        self._model = build_simulator(FAST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._model(scope, receive, send)
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        name = dict(scope["headers"]).get(b"x-request-id")
        if name is None:
            self.unnamed += 1
        else:
            self.calls[call_id(scope)] = self._limits(scope["path"], json.loads(raw))
        waiting = [{"type": "http.request", "body": raw, "more_body": False}]

        async def again() -> Any:
            return waiting.pop() if waiting else await receive()

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start" and name is not None:
                self.calls[call_id(scope)]["status"] = message["status"]
            await send(message)

        await self._model(scope, again, watched)

    @staticmethod
    def _limits(path: str, body: dict[str, Any]) -> dict[str, Any]:
        prompt = body.get("prompt")
        prompts = len(prompt) if isinstance(prompt, list) and not all(isinstance(one, int) for one in prompt) else 1
        limits = [body[name] for name in TOKEN_LIMITS if name in body]
        choices = prompts * max(body.get(name) or 1 for name in MULTIPLIES)
        return {"path": path, "limits": limits, "choices": choices, "status": None}


@dataclass
class Found:
    """The result of a run. ``breaches`` are sentences; none means that every promise held."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    reached: int = 0
    answered: int = 0
    records: int = 0
    breaches: list[str] = field(default_factory=list)

    def add(self, part: Found) -> None:
        """Add what one caller found."""
        self.cases += part.cases
        self.statuses += part.statuses
        self.breaches += part.breaches


@dataclass(frozen=True)
class House:
    """The loop with a witness before its model."""

    loop: Rig
    witness: Witness
    keys: list[str]
    sharing: str
    """The customer each of whose end users may use ``PART`` tokens."""

    def fuzz(self, cases: int, seed: int) -> Found:
        """Send ``cases`` requests, several at a time, and compare.

        On a busy machine, one call at a time would mostly wait: a call passes between threads and processes a dozen
        times, and waits for the disk twice. Simultaneous calls share these waits.
        """
        found = Found()
        with ThreadPoolExecutor(CALLERS) as callers:
            shares = [range(number, cases, CALLERS) for number in range(CALLERS)]
            for part in callers.map(lambda share: self._send(share, seed), shares):
                found.add(part)
        self._compare(found)
        return found

    def _send(self, numbers: range, seed: int) -> Found:
        """Send one caller's share of the cases, each made from its own number, over one connection."""
        found = Found()
        address = urlsplit(self.loop.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        for number in numbers:
            chance = random.Random(f"{seed} {number}")
            one = case(chance, chance.choice(self.keys))
            status, body = _ask(connection, one)
            found.cases += 1
            found.statuses[status] += 1
            if wrong := _judged(one, status, body):
                found.breaches.append(f"case {number}: {wrong}: {one.method} {one.path[:100]} {one.body[:200]!r}")
        connection.close()
        return found

    def _compare(self, found: Found) -> None:
        self.loop.until_nothing_is_held()
        records = {record["id"]: record for record in self.loop.usage()}
        calls = dict(self.witness.calls)
        found.reached, found.records = len(calls), len(records)
        found.answered = sum(one["status"] == 200 for one in calls.values())
        if self.witness.unnamed:
            found.breaches.append(f"{self.witness.unnamed} calls reached the model without a request id")
        for name, one in calls.items():
            record = records.get(name)
            if one["status"] == 200 and record is None:
                found.breaches.append(f"{name} was answered and has no record: {one}")
            if record is None:
                continue
            granted = (record["cap_tokens"], record["choices"])
            if any(limit != granted[0] for limit in one["limits"]) or one["choices"] != granted[1]:
                found.breaches.append(f"{name} was granted {granted} and told {one}")
            if not one["limits"] and granted[0]:
                found.breaches.append(f"{name} was told no limit: {one}")
        parts: Counter[str] = Counter()
        for record in records.values():
            if record["customer"] == self.sharing:
                parts[record.get("end_user", "")] += record["billed_output_tokens"]
        found.breaches += [f"{name!r} had {had} tokens of {PART}" for name, had in parts.items() if had > PART]
        found.breaches += [f"{name} has a record and never reached the model" for name in records.keys() - calls.keys()]


@contextmanager
def house(directory: Path) -> Iterator[House]:
    """Run the loop with three customers, one of them capped, one with a limit for each of its end users."""
    witness = Witness()
    with ExitStack() as stack:
        redis_url = stack.enter_context(valkey_in(stack.enter_context(short_directory())))
        ledger = f"sqlite:///{directory / 'ledger.sqlite'}"
        loop = stack.enter_context(
            rig(redis_url, ledger, directory, upstream=witness, embedding_model="aligned-1-embedding")
        )
        loop.tier("open", price_nanousd=1)
        loop.tier("small", conversation_tokens_max=30, price_nanousd=1)
        loop.tier("shared", end_user_period_tokens_max=PART)
        sold = {tier: loop.customer(tier) for tier in ("open", "small", "shared")}
        yield House(loop, witness, [who.key for who in sold.values()], sold["shared"].id)


def _ask(connection: http.client.HTTPConnection, one: Case) -> tuple[int, bytes]:
    """Send one request unchanged, and return the status and body of its answer."""
    try:
        connection.putrequest(one.method, one.path, skip_accept_encoding=True)
        for name, value in {**one.headers, "content-length": str(len(one.body))}.items():
            connection.putheader(name, value)
        connection.endheaders(one.body)
        answer = connection.getresponse()
        body = answer.read()
    except (http.client.HTTPException, OSError) as error:
        connection.close()
        return 0, repr(error).encode()
    if answer.will_close:
        connection.close()
    return answer.status, body


def _judged(one: Case, status: int, body: bytes) -> str | None:
    """Return what is wrong with an answer, or None."""
    if status >= 500 or status == 0:
        return f"answered {status}, {body[:200]!r}"
    if status >= 400 and one.path in BODIES and one.method != "HEAD" and body != NOT_HTTP:
        shape = json.loads(body)
        if not isinstance(shape.get("error"), dict) or not shape["error"].get("message"):
            return f"refused without the shape of an error, {body[:200]!r}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--transcripts", type=int, default=200_000)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2, help="processes that play transcripts")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    held = _requests(arguments.cases, arguments.seed) if arguments.cases else True
    if arguments.transcripts:
        held &= _transcripts(arguments.transcripts, arguments.seed, arguments.workers)
    if arguments.calls:
        held &= play_all(arguments.calls, arguments.seed)
    if held:
        print("Every promise held.")
    return 0 if held else 1


def _transcripts(cases: int, seed: int, workers: int) -> bool:
    """Play mutated transcripts, print the findings, and return whether every promise held."""
    played = run_all(cases, seed, workers)
    print(f"played     {played.cases} mutated transcripts, {sum(played.kinds.values())} broke a promise")
    for kind, count in played.kinds.most_common(20):
        print(f"{count} x {played.breaches[kind]}\n")
    return not played.kinds


def _requests(cases: int, seed: int) -> bool:
    """Send requests, print the findings, and return whether every promise held."""
    with tempfile.TemporaryDirectory() as directory, house(Path(directory)) as running:
        found = running.fuzz(cases, seed)
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(found.statuses.items()))
    print(f"cases      {found.cases}\nstatuses   {statuses}")
    print(
        f"reached    {found.reached} reached the model, {found.answered} were answered, {found.records} are on record"
    )
    print("\n".join(found.breaches[:50]))
    return not found.breaches


if __name__ == "__main__":
    sys.exit(main())
