"""The kinds of calls on which the promises are checked, for each format that an engine speaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.serving.upstream.profiles import MESSAGES
from tests.engines.bench import Bench
from tests.engines.requests import EngineRequest
from tests.waiting import until

CAPS = range(1, 65)
FEW = (1, 2, 3, 5, 8, 13, 21, 34, 64)
PROMPTS = tuple(f"Say {number}." for number in range(40))
TOO_LONG = "the price of a token is in the menu " * 1_000
IDLE_S = 120
LEDGER_S = 30
LONG = 256
HANG_UPS = 6
PACED = 8
"""How many answers the gateway needs to know the model's speed."""

LINES = 20
"""How many lines of a stream a caller reads before it hangs up."""


@dataclass(frozen=True)
class Kind:
    """A kind of calls: its name, how many there are, and a function that makes them and yields each breach."""

    name: str
    calls: int
    breaches: Callable[[], Iterable[tuple[object, str]]]
    figures: list[str] = field(default_factory=list)
    """Sums over the calls, once they are made."""


def kinds(bench: Bench) -> Iterator[Kind]:
    """Yield each kind of calls that the engine supports."""
    for endpoint in bench.engine.speaks:
        yield from _kinds_of(bench, endpoint)


def _kinds_of(bench: Bench, endpoint: str) -> Iterator[Kind]:
    goes_on, ends = _prompts(bench, endpoint)
    choices = (1, 2) if endpoint in bench.engine.several else (1,)

    def requests_of(**fields: Any) -> Iterator[EngineRequest]:
        for stream, n in product((False, True), choices):
            yield EngineRequest(endpoint, **{"prompt": goes_on, "stream": stream, "n": n, **fields})

    def kind(name: str, requests: Iterable[EngineRequest]) -> Kind:
        listed = list(requests)
        return Kind(f"{endpoint} {name}", len(listed), lambda: bench.breaches(listed))

    yield kind("caps from 1 to 64", (request for cap in CAPS for request in requests_of(cap=cap)))
    yield kind("callers' limits from 1 to 64", (request for limit in CAPS for request in requests_of(limit=limit)))
    yield kind("both", (request for cap, limit in product(FEW, FEW) for request in requests_of(cap=cap, limit=limit)))
    yield kind(
        "answers that end by themselves", (request for cap in FEW for request in requests_of(prompt=ends, cap=cap))
    )
    if bench.engine.has_length:
        yield kind("answers as long as the model", requests_of(may_be_refused=endpoint == MESSAGES))
        too_long = (
            request for cap in (None, 8) for request in requests_of(prompt=TOO_LONG, cap=cap, may_be_refused=True)
        )
        yield kind("prompts longer than the model", too_long)
    if endpoint in bench.engine.calls_tools:
        yield kind("tools", (request for cap in (None, *CAPS) for request in requests_of(tools=True, cap=cap)))
    yield Kind(f"{endpoint} conversations to their cap", 8, lambda: _conversations(bench, endpoint, goes_on))
    yield _hang_ups(bench, endpoint, goes_on)


def hang_ups(bench: Bench) -> Iterator[Kind]:
    """Yield the kinds of calls whose caller hangs up."""
    for endpoint in bench.engine.speaks:
        yield _hang_ups(bench, endpoint, _prompts(bench, endpoint)[0])


def _prompts(bench: Bench, endpoint: str) -> tuple[str, str]:
    """Return a prompt with a long answer, and a prompt whose answer soon ends on its own; both are repeatable."""
    lengths = {prompt: bench.tokens(EngineRequest(endpoint, prompt, limit=CAPS[-1])) or 0 for prompt in PROMPTS}
    goes_on = next((prompt for prompt, tokens in lengths.items() if tokens == CAPS[-1]), None)
    ends = next((prompt for prompt, tokens in lengths.items() if FEW[2] < tokens < CAPS[-1]), None)
    assert goes_on and ends, f"no prompt is answered at length, or none soon: {lengths}"
    for prompt in (goes_on, ends):
        request = EngineRequest(endpoint, prompt, limit=CAPS[-1])
        assert bench.directly.__wrapped__(request).choices == bench.directly(request).choices, (
            "the engine is not deterministic"
        )
    return goes_on, ends


def _conversations(bench: Bench, endpoint: str, prompt: str) -> Iterator[tuple[object, str]]:
    """Make four calls in a conversation whose cap is reached within the third call."""
    for stream in (False, True):
        request = EngineRequest(endpoint, prompt, stream, limit=10, cap=24)
        received = [bench.through(request, f"to-its-cap-{endpoint}-{stream}".replace("/", ".")) for _ in range(4)]
        bench.house.until_nothing_is_held()
        records = bench.records([request])
        tokens = [records[one.record_id]["billed_output_tokens"] for one in received if one.record_id in records]
        charged = [records[one.record_id]["charge_nanousd"] for one in received if one.record_id in records]
        if tokens != [10, 10, 4] or charged != [1, 0, 0]:
            yield request, f"its calls are billed {tokens} tokens at {charged}"
        if received[3].shown.status != httpx.codes.TOO_MANY_REQUESTS:
            yield request, f"the call after its cap came to {received[3].shown}"


def _hang_ups(bench: Bench, endpoint: str, prompt: str) -> Kind:
    fields = bench.house.settings
    manner = ", ".join(filter(None, (fields.on_hangup, fields.hangup_bills)))
    name = f"{endpoint} callers who hang up" + (f" ({manner})" if manner else "")
    figures: list[str] = []
    return Kind(name, HANG_UPS, lambda: _left(bench, endpoint, prompt, figures), figures)


def _left(bench: Bench, endpoint: str, prompt: str, figures: list[str]) -> Iterator[tuple[object, str]]:
    """Hang up in the middle of answers: nothing stays held, and the record has what the operator wants billed."""
    if bench.house.settings.hangup_bills == "timed":
        for _ in range(PACED):
            bench.through(EngineRequest(endpoint, prompt, limit=LONG))
        bench.house.until_nothing_is_held(IDLE_S)
    billed, generated = 0, 0
    for number in range(HANG_UPS):
        request = EngineRequest(endpoint, prompt, stream=number % 2 == 0, limit=LONG)
        before = bench.engine.generated(bench.url)
        known = set(bench.records([request]))
        _hang_up(bench, request)
        bench.house.until_nothing_is_held(IDLE_S)
        until(lambda: bench.engine.is_idle(bench.url), IDLE_S)
        after = bench.engine.generated(bench.url)
        records = _settled(bench, request, known)
        of_call = None if after is None or before is None else after - before
        billed, generated = (
            billed + sum(record["billed_output_tokens"] for record in records),
            generated + (of_call or 0),
        )
        for breach in _owed(bench, request, records, of_call):
            yield request, f"{breach}: {records}"
    figures.append(f"billed {billed}" + (f", made {generated}" if bench.engine.counter else ""))


def _settled(bench: Bench, request: EngineRequest, known: set[str]) -> list[dict[str, Any]]:
    """Return the new records: on a busy machine a call reaches the ledger some time after it is settled."""

    def new() -> list[dict[str, Any]]:
        return [record for name, record in bench.records([request]).items() if name not in known]

    if not _may_be_unbilled(bench, request):
        with suppress(TimeoutError):
            return until(new, LEDGER_S)
    return new()


def _may_be_unbilled(bench: Bench, request: EngineRequest) -> bool:
    """Return whether an abandoned call may have no record: nothing of a whole answer is relayed before its end."""
    return bench.house.settings.hangup_bills == "visible" and not request.stream


def _owed(bench: Bench, request: EngineRequest, records: list[dict[str, Any]], generated: int | None) -> Iterator[str]:
    """Yield the faults in the record of an abandoned call; ``generated`` is the engine's own count."""
    whole, bills = bench.tokens(request) or 0, bench.house.settings.hangup_bills
    tokens = sum(record["billed_output_tokens"] for record in records)
    source = records[0]["usage_source"] if records else None
    stops = bench.house.settings.on_hangup == "stop" or (bench.house.settings.on_hangup is None and bench.engine.stops)
    if len(records) > 1 or not (records or _may_be_unbilled(bench, request)):
        yield "one record is made of a call that is left in the middle"
    elif records and records[0]["finish"] != "disconnect":
        if tokens != whole:  # the answer had just ended
            yield f"{tokens} tokens are billed of {whole}"
    elif not stops and source != "continuous":
        if tokens != whole:
            yield f"{tokens} tokens are billed of {whole}, which was read to its end"
    elif source == "granted":
        if tokens != LONG or bills not in (None, "granted"):
            yield f"{tokens} tokens are billed of a grant of {LONG}"
    elif source == "timed":
        if not request.stream <= tokens <= LONG or bills not in (None, "timed"):
            yield f"{tokens} tokens are billed by time"
    elif tokens > (whole if generated is None else generated) or tokens < request.stream:
        yield f"{tokens} tokens are billed by what went by, and {generated} were made"


def _hang_up(bench: Bench, request: EngineRequest) -> None:
    """Hang up on a streamed answer after some lines, on a whole answer once the engine is asked for it."""
    who = bench.customer(request.cap)
    before = bench.between.requests
    connection = HTTPConnection(urlsplit(bench.house.url).netloc, timeout=IDLE_S)
    headers = {"content-type": "application/json", **who.headers}
    connection.request("POST", request.endpoint, json.dumps(request.body()), headers)
    if request.stream:
        with connection.getresponse() as answer:
            for _ in range(LINES):
                answer.readline()
    else:
        until(lambda: bench.between.requests > before, IDLE_S)
    connection.close()
