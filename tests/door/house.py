"""The loop behind its front ends, with a witness before the model, a handler on the log, and a comparison of counts."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.simulator.model_server import build as build_simulator
from tests.door.front_ends import front_ends
from tests.loop.rig import FAST, Rig, Sold, rig
from tests.servers import short_directory, valkey_in
from tests.waiting import until

MARK = re.compile(rb"m[0-9a-f]{32}")
BOOKED_S = 30.0
"""How long an answered call may be missing from the records."""

METRICS_TOKEN = "metrics-" + secrets.token_hex(16)
CALLERS = 4
"""Simultaneous callers, each a customer with a neighbour."""


@dataclass(frozen=True)
class Reached:
    """A call that reached the model: the gateway's id of the call, and the marks in its body."""

    request_id: str | None
    marks: frozenset[str]
    status: int | None


class Witness:
    """Passes calls to the simulated model and remembers them."""

    def __init__(self) -> None:
        self.reached: list[Reached] = []
        self._model = build_simulator(FAST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._model(scope, receive, send)
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        sent_id = dict(scope["headers"]).get(b"x-request-id")
        marks = frozenset(found.decode() for found in MARK.findall(raw))
        waiting = [{"type": "http.request", "body": raw, "more_body": False}]

        async def again() -> Any:
            return waiting.pop() if waiting else await receive()

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.reached.append(
                    Reached(None if sent_id is None else "req_" + sent_id.decode(), marks, message["status"])
                )
            await send(message)

        await self._model(scope, again, watched)


class Log(logging.Handler):
    """Keeps the messages that are logged as errors, or with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            kind = record.exc_info[1] if record.exc_info else None
            self.errors.append(record.getMessage() if kind is None else f"{record.getMessage()}: {kind!r}")


@dataclass(frozen=True)
class Sent:
    """A request that was sent under a mark: its customers, a description, and how many calls and records must follow.

    ``calls`` of None allow any number, since the meaning of mutated bytes is unknown.
    """

    owners: frozenset[str]
    what: str
    calls: int | None
    records: int | None


@dataclass
class Found:
    """The result of a run. ``breaches`` are sentences; none means that every promise held."""

    plays: int = 0
    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    sent: dict[str, Sent] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    """Maps the gateway's id of each answered call to the mark of the request that got the answer."""
    hung_up: set[str] = field(default_factory=set)
    """Marks sent on connections that were given up: a call whose caller left before the answer's head has no record."""
    calls: int = 0
    answered_calls: int = 0
    """Calls that the model answered with a 2xx head."""
    records: int = 0
    breaches: list[str] = field(default_factory=list)

    def add(self, part: Found) -> None:
        """Add what one caller found."""
        self.plays += part.plays
        self.requests += part.requests
        self.statuses += part.statuses
        self.sent |= part.sent
        self.answered |= part.answered
        self.hung_up |= part.hung_up
        self.breaches += part.breaches


@dataclass(frozen=True)
class Pair:
    """A caller who sends anything, a neighbour who sends ordinary calls, and a third customer who sends nothing."""

    caller: Sold
    neighbour: Sold
    victim: Sold

    @property
    def customers(self) -> frozenset[str]:
        """The ids of all three."""
        return frozenset({self.caller.id, self.neighbour.id, self.victim.id})


@dataclass(frozen=True)
class House:
    """The loop, its front ends and its witnesses. ``addresses`` are the addresses of the routes to it."""

    loop: Rig
    admin_token: str
    addresses: dict[str, str]
    pairs: list[Pair]
    witness: Witness
    log: Log
    marks: dict[str, Pair] = field(default_factory=dict)
    """Every mark that was ever sent, and its pair."""

    def new_mark(self, pair: Pair) -> str:
        """Return a word for one request of this pair and for no other request."""
        mark = f"m{secrets.token_hex(16)}"
        self.marks[mark] = pair
        return mark

    @contextmanager
    def compared(self, found: Found) -> Iterator[None]:
        """Compare the requests sent within the block; at its end, add every disagreement to ``found``."""
        start, reached, errors = int(time.time() * 1000), len(self.witness.reached), len(self.log.errors)
        yield
        self.loop.until_nothing_is_held(60)
        calls = self.witness.reached[reached:]
        records: dict[str, dict[str, Any]] = {}
        with suppress(TimeoutError):  # a record that is still missing is a breach
            until(lambda: records.update(self._by_id(start)) or found.answered.keys() <= records.keys(), BOOKED_S)
        found.calls, found.records = len(calls), len(records)
        found.answered_calls = sum(call.status == 200 for call in calls)
        found.breaches += [f"logged: {error}" for error in self.log.errors[errors:]]
        found.breaches += list(_disagreements(found, calls, records))

    def _by_id(self, start_ms: int) -> dict[str, dict[str, Any]]:
        return {record["id"]: record for record in self._records(start_ms)}

    def _records(self, start_ms: int) -> list[dict[str, Any]]:
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(start_ms // 1000)) + f".{start_ms % 1000:03d}Z"
        records: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 1000, "from": since}
        while True:
            page = self.loop.admin.get("/admin/usage", params=query)
            assert page.status_code == 200, page.text
            records += page.json()["data"]
            if page.json()["next_cursor"] is None:
                return records
            query["cursor"] = page.json()["next_cursor"]


def _disagreements(found: Found, calls: list[Reached], records: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each call, record and answer without its counterpart."""
    reached, recorded = Counter[str](), Counter[str]()
    for call in calls:
        record = records.get(call.request_id or "")
        known = [mark for mark in call.marks if mark in found.sent]
        reached.update(known)
        if record is None:
            if call.status == 200 and not (known and found.hung_up.issuperset(known)):
                yield f"{call.request_id} was answered and has no record: {[found.sent[mark].what for mark in known]}"
            continue
        recorded.update(known)
        if wrong := [found.sent[mark].what for mark in known if record["customer"] not in found.sent[mark].owners]:
            yield f"{record['id']} is on record for {record['customer']} and was sent by others: {wrong}"
    ids = {call.request_id for call in calls}
    yield from (f"{name} has a record and never reached the model" for name in records.keys() - ids)
    for mark, sent in found.sent.items():
        if sent.calls is not None and reached[mark] != sent.calls:
            yield f"{sent.what}: {reached[mark]} calls reached the model, {sent.calls} belong there"
        if sent.records is not None and recorded[mark] != sent.records:
            yield f"{sent.what}: {recorded[mark]} calls are on record, {sent.records} belong there"
    for name, mark in found.answered.items():
        if name not in records:
            yield f"{found.sent[mark].what}: answered as {name}, which has no record"
        elif records[name]["customer"] not in found.sent[mark].owners:
            yield f"{found.sent[mark].what}: got the answer of {records[name]['customer']}"


@contextmanager
def house(directory: Path) -> Iterator[House]:
    """Run everything."""
    witness, log = Witness(), Log()
    with ExitStack() as stack:
        redis_url = stack.enter_context(valkey_in(stack.enter_context(short_directory())))
        ledger = f"sqlite:///{directory / 'ledger.sqlite'}"
        loop = stack.enter_context(
            rig(
                redis_url,
                ledger,
                directory,
                upstream=witness,
                embedding_model="aligned-1-embedding",
                model_aliases=("gpt-4o",),
                metrics_token=METRICS_TOKEN,
            )
        )
        stack.enter_context(_watched(log))
        loop.tier("open", price_nanousd=1, requests_per_minute=10_000_000)
        pairs = [Pair(*(loop.customer("open") for _ in range(3))) for _ in range(CALLERS)]
        gateway = loop.url.removeprefix("http://")
        addresses = stack.enter_context(front_ends(gateway, stack.enter_context(short_directory())))
        token = loop.admin.headers["authorization"].removeprefix("Bearer ")
        yield House(loop, token, addresses, pairs, witness, log)


@contextmanager
def _watched(log: Log) -> Iterator[None]:
    """Attach the handler to the root logger, and to uvicorn's, which does not propagate."""
    loggers = [logging.getLogger(), logging.getLogger("uvicorn")]
    for logger in loggers:
        logger.addHandler(log)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(log)
