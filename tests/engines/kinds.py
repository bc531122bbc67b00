"""The kinds of calls that are held to the promises, for each format that an engine speaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.serving.profiles import MESSAGES
from tests.engines.asks import Ask
from tests.engines.bench import Bench
from tests.waiting import until

CAPS = range(1, 65)
FEW = (1, 2, 3, 5, 8, 13, 21, 34, 64)
PROMPTS = tuple(f"Say {number}." for number in range(40))
TOO_LONG = "the price of a token is in the menu " * 1_000
IDLE_S = 120
LONG = 256
LINES = 20
"""Of a stream that a caller reads before it hangs up."""


@dataclass(frozen=True)
class Kind:
    """A kind of calls: its name, how many there are, and what makes them and yields each breach."""

    name: str
    calls: int
    breaches: Callable[[], Iterable[tuple[object, str]]]


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
    yield Kind(f"{endpoint} callers who hang up", 6, lambda: _hang_ups(bench, endpoint, goes_on))


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


def _hang_ups(bench: Bench, endpoint: str, prompt: str) -> Iterator[tuple[object, str]]:
    """Hang up in the middle of answers: nothing stays held, and no token is on record that was not made."""
    for stream in (True, False) * 3:
        ask = Ask(endpoint, prompt, stream, limit=LONG)
        before = bench.engine.made(bench.house.upstream)
        known = set(bench.records([ask]))
        _hang_up(bench, ask)
        bench.house.until_nothing_is_held(IDLE_S)
        until(lambda: bench.engine.is_idle(bench.house.upstream), IDLE_S)
        after = bench.engine.made(bench.house.upstream)
        records = [record for name, record in bench.records([ask]).items() if name not in known]
        tokens = sum(record["billed_output_tokens"] for record in records)
        if after is not None and before is not None and tokens > after - before:
            yield ask, f"{tokens} tokens are billed, and {after - before} were made"
        whole = bench.tokens(ask)
        if stream and [record["finish"] for record in records] != ["disconnect"]:
            yield ask, f"on record is {records}"
        if stream and not 1 <= tokens <= (whole or 0):
            yield ask, f"{tokens} tokens are billed of {whole}"
        if not stream and tokens not in ((0, whole) if bench.engine.stops else (whole,)):  # it may have just ended
            yield ask, f"{tokens} tokens are billed of {whole}: {records}"


def _hang_up(bench: Bench, ask: Ask) -> None:
    """Leave a streamed answer once some events of it are here, a whole one once it is under way."""
    connection = HTTPConnection(urlsplit(bench.house.url).netloc, timeout=IDLE_S)
    headers = {"content-type": "application/json", **bench.customer(ask.cap).headers}
    connection.request("POST", ask.endpoint, json.dumps(ask.body()), headers)
    if ask.stream:
        with connection.getresponse() as answer:
            for _ in range(LINES):
                answer.readline()
    else:
        until(lambda: bench.house.open_holds() == 1)
    connection.close()
