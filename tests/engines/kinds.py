"""The kinds of calls that are held to the promises, for each format that an engine speaks."""

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
from tests.engines.asks import Ask
from tests.engines.bench import Bench
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
"""Answers from which a gateway knows the model's pace."""

LINES = 20
"""Of a stream that a caller reads before it hangs up."""


@dataclass(frozen=True)
class Kind:
    """A kind of calls: its name, how many there are, and what makes them and yields each breach."""

    name: str
    calls: int
    breaches: Callable[[], Iterable[tuple[object, str]]]
    figures: list[str] = field(default_factory=list)
    """What the calls came to, once they are made."""


def kinds(bench: Bench) -> Iterator[Kind]:
    """Yield each kind of calls that the engine can be asked."""
    for endpoint in bench.engine.speaks:
        yield from _kinds_of(bench, endpoint)


def _kinds_of(bench: Bench, endpoint: str) -> Iterator[Kind]:
    goes_on, ends = _prompts(bench, endpoint)
    choices = (1, 2) if endpoint in bench.engine.several else (1,)

    def asked(**given: Any) -> Iterator[Ask]:
        for stream, n in product((False, True), choices):
            yield Ask(endpoint, **{"prompt": goes_on, "stream": stream, "n": n, **given})

    def kind(name: str, asks: Iterable[Ask]) -> Kind:
        listed = list(asks)
        return Kind(f"{endpoint} {name}", len(listed), lambda: bench.breaches(listed))

    yield kind("caps from 1 to 64", (ask for cap in CAPS for ask in asked(cap=cap)))
    yield kind("callers' limits from 1 to 64", (ask for limit in CAPS for ask in asked(limit=limit)))
    yield kind("both", (ask for cap, limit in product(FEW, FEW) for ask in asked(cap=cap, limit=limit)))
    yield kind("answers that end by themselves", (ask for cap in FEW for ask in asked(prompt=ends, cap=cap)))
    if bench.engine.has_length:
        yield kind("answers as long as the model", asked(may_be_refused=endpoint == MESSAGES))
        too_long = (ask for cap in (None, 8) for ask in asked(prompt=TOO_LONG, cap=cap, may_be_refused=True))
        yield kind("prompts longer than the model", too_long)
    if endpoint in bench.engine.calls_tools:
        yield kind("tools", (ask for cap in (None, *CAPS) for ask in asked(tools=True, cap=cap)))
    yield Kind(f"{endpoint} conversations to their cap", 8, lambda: _conversations(bench, endpoint, goes_on))
    yield _hang_ups(bench, endpoint, goes_on)


def hang_ups(bench: Bench) -> Iterator[Kind]:
    """Yield the kinds of calls whose caller hangs up."""
    for endpoint in bench.engine.speaks:
        yield _hang_ups(bench, endpoint, _prompts(bench, endpoint)[0])


def _prompts(bench: Bench, endpoint: str) -> tuple[str, str]:
    """Return a prompt whose answer goes on, and one whose answer soon ends by itself; the engine says both twice alike."""
    lengths = {prompt: bench.tokens(Ask(endpoint, prompt, limit=CAPS[-1])) or 0 for prompt in PROMPTS}
    goes_on = next((prompt for prompt, tokens in lengths.items() if tokens == CAPS[-1]), None)
    ends = next((prompt for prompt, tokens in lengths.items() if FEW[2] < tokens < CAPS[-1]), None)
    assert goes_on and ends, f"no prompt is answered at length, or none soon: {lengths}"
    for prompt in (goes_on, ends):
        ask = Ask(endpoint, prompt, limit=CAPS[-1])
        assert bench.directly.__wrapped__(ask).choices == bench.directly(ask).choices, "the engine is not deterministic"
    return goes_on, ends


def _conversations(bench: Bench, endpoint: str, prompt: str) -> Iterator[tuple[object, str]]:
    """Call three times in a conversation, which its cap ends within the third, and once more."""
    for stream in (False, True):
        ask = Ask(endpoint, prompt, stream, limit=10, cap=24)
        heard = [bench.through(ask, f"to-its-cap-{endpoint}-{stream}".replace("/", ".")) for _ in range(4)]
        bench.house.until_nothing_is_held()
        records = bench.records([ask])
        tokens = [records[one.record_id]["billed_output_tokens"] for one in heard if one.record_id in records]
        charged = [records[one.record_id]["charge_nanousd"] for one in heard if one.record_id in records]
        if tokens != [10, 10, 4] or charged != [1, 0, 0]:
            yield ask, f"its calls are billed {tokens} tokens at {charged}"
        if heard[3].said.status != httpx.codes.TOO_MANY_REQUESTS:
            yield ask, f"the call after its cap came to {heard[3].said}"


def _hang_ups(bench: Bench, endpoint: str, prompt: str) -> Kind:
    given = bench.house.settings
    manner = ", ".join(filter(None, (given.on_hangup, given.hangup_bills)))
    name = f"{endpoint} callers who hang up" + (f" ({manner})" if manner else "")
    figures: list[str] = []
    return Kind(name, HANG_UPS, lambda: _left(bench, endpoint, prompt, figures), figures)


def _left(bench: Bench, endpoint: str, prompt: str, figures: list[str]) -> Iterator[tuple[object, str]]:
    """Hang up in the middle of answers: nothing stays held, and on record is what the operator wants billed."""
    if bench.house.settings.hangup_bills == "timed":
        for _ in range(PACED):
            bench.through(Ask(endpoint, prompt, limit=LONG))
        bench.house.until_nothing_is_held(IDLE_S)
    billed, made = 0, 0
    for number in range(HANG_UPS):
        ask = Ask(endpoint, prompt, stream=number % 2 == 0, limit=LONG)
        before = bench.engine.made(bench.url)
        known = set(bench.records([ask]))
        _hang_up(bench, ask)
        bench.house.until_nothing_is_held(IDLE_S)
        until(lambda: bench.engine.is_idle(bench.url), IDLE_S)
        after = bench.engine.made(bench.url)
        records = _settled(bench, ask, known)
        of_call = None if after is None or before is None else after - before
        billed, made = billed + sum(record["billed_output_tokens"] for record in records), made + (of_call or 0)
        for breach in _owed(bench, ask, records, of_call):
            yield ask, f"{breach}: {records}"
    figures.append(f"billed {billed}" + (f", made {made}" if bench.engine.counter else ""))


def _settled(bench: Bench, ask: Ask, known: set[str]) -> list[dict[str, Any]]:
    """Return the records that are new: on a machine that is busy a call may be in the ledger only later than it is settled."""

    def new() -> list[dict[str, Any]]:
        return [record for name, record in bench.records([ask]).items() if name not in known]

    if not _may_be_unbilled(bench, ask):
        with suppress(TimeoutError):
            return until(new, LEDGER_S)
    return new()


def _may_be_unbilled(bench: Bench, ask: Ask) -> bool:
    """Return whether a call that was left may have no record: nothing of a whole answer goes by before its end."""
    return bench.house.settings.hangup_bills == "visible" and not ask.stream


def _owed(bench: Bench, ask: Ask, records: list[dict[str, Any]], made: int | None) -> Iterator[str]:
    """Yield what is wrong with the record of a call that was left; ``made`` is by the engine's own count."""
    whole, bills = bench.tokens(ask) or 0, bench.house.settings.hangup_bills
    tokens = sum(record["billed_output_tokens"] for record in records)
    source = records[0]["usage_source"] if records else None
    stops = bench.house.settings.on_hangup == "stop" or (bench.house.settings.on_hangup is None and bench.engine.stops)
    if len(records) > 1 or not (records or _may_be_unbilled(bench, ask)):
        yield "one record is made of a call that is left in the middle"
    elif records and records[0]["finish"] != "disconnect":
        if tokens != whole:  # it had just ended
            yield f"{tokens} tokens are billed of {whole}"
    elif not stops and source != "continuous":
        if tokens != whole:
            yield f"{tokens} tokens are billed of {whole}, which was read to its end"
    elif source == "granted":
        if tokens != LONG or bills not in (None, "granted"):
            yield f"{tokens} tokens are billed of a grant of {LONG}"
    elif source == "timed":
        if not ask.stream <= tokens <= LONG or bills not in (None, "timed"):
            yield f"{tokens} tokens are billed by time"
    elif tokens > (whole if made is None else made) or tokens < ask.stream:
        yield f"{tokens} tokens are billed by what went by, and {made} were made"


def _hang_up(bench: Bench, ask: Ask) -> None:
    """Leave a streamed answer once some events of it are here, a whole one once the engine is asked for it."""
    who = bench.customer(ask.cap)
    before = bench.between.asked
    connection = HTTPConnection(urlsplit(bench.house.url).netloc, timeout=IDLE_S)
    headers = {"content-type": "application/json", **who.headers}
    connection.request("POST", ask.endpoint, json.dumps(ask.body()), headers)
    if ask.stream:
        with connection.getresponse() as answer:
            for _ in range(LINES):
                answer.readline()
    else:
        until(lambda: bench.between.asked > before, IDLE_S)
    connection.close()
