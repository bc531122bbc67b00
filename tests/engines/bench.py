"""Makes the same calls to an engine and to a gateway before it, and compares both answers and the records."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from http.client import HTTPResponse
from typing import Any

import httpx

from gateway.serving.upstream.profiles import RESPONSES
from tests.engines.engines import Engine
from tests.engines.requests import EngineRequest
from tests.engines.shown import Shown, in_stream, in_whole
from tests.faults.wire import Wire
from tests.loop.rig import Rig, Sold
from tests.wire.sdk_models import read_stream, read_whole, strict_json

PATIENCE_S = 300
NO_IDLE = httpx.Limits(max_keepalive_connections=0)
"""Engines close idle connections when they like."""

OPEN = "open"
FINISHES = {"stop": "complete", "tool_calls": "tool_calls", "content_filter": "filtered"}


@dataclass(frozen=True)
class Received:
    """The answer that a caller of the gateway got, and the bytes that the engine sent to the gateway for it.

    ``untaken`` is the error that the vendor's SDK raises for the caller's answer, if any.
    """

    request: EngineRequest
    shown: Shown
    headers: httpx.Headers
    untaken: str | None
    of_engine: bytes

    @property
    def record_id(self) -> str:
        return self.headers["x-request-id"]

    @property
    def grant(self) -> int | None:
        return int(self.headers["x-tokencap-cap"]) if "x-tokencap-cap" in self.headers else None


class Bench:
    """One engine at ``url``, the gateway before it, and the wire between them."""

    def __init__(self, engine: Engine, url: str, house: Rig, between: Wire) -> None:
        self.engine = engine
        self.url = url
        self.house = house
        self.between = between
        self.client = httpx.Client(timeout=PATIENCE_S, limits=NO_IDLE)
        self.directly = cache(self._directly)
        self.customer = cache(self._customer)

    def _customer(self, cap: int | None) -> Sold:
        tier = OPEN if cap is None else f"cap-{cap}"
        self.house.tier(tier, conversation_tokens_max=cap, price_nanousd=1)
        return self.house.customer(tier)

    def _directly(self, request: EngineRequest) -> Shown:
        """Return the engine's own answer."""
        answer = self.client.post(self.url + request.endpoint, json=request.body())
        if answer.status_code != httpx.codes.OK:
            return Shown(status=answer.status_code, error=answer.text)
        return _shown(request, answer.content)

    def tokens(self, request: EngineRequest) -> int | None:
        """Return the tokens of all choices, from a call for one: some engines count only one, and all are alike."""
        one = replace(request, n=1)
        shown = self.directly(one).tokens
        each = self.directly(replace(one, stream=False)).tokens if shown is None else shown
        return None if each is None else each * request.n

    def through(self, request: EngineRequest, conversation: str | None = None) -> Received:
        """Make a call through the gateway, and return its answer as the vendor's SDK reads it."""
        headers = self.customer(request.cap).headers | ({"x-conversation-id": conversation} if conversation else {})
        answer = self.client.post(self.house.url + request.endpoint, json=request.body(), headers=headers)
        if answer.status_code != httpx.codes.OK:
            return Received(request, Shown(status=answer.status_code, error=answer.text), answer.headers, None, b"")
        shown, untaken = _taken(request, answer.content)
        return Received(request, shown, answer.headers, untaken, bytes(self.between.reply))

    def records(self, requests: Iterable[EngineRequest]) -> dict[str, dict[str, Any]]:
        """Return the records of the customers of these calls, by id."""
        customers = {self.customer(request.cap) for request in requests}
        return {record["id"]: record for who in customers for record in self.house.usage(who)}

    def breaches(self, requests: Iterable[EngineRequest]) -> Iterator[tuple[EngineRequest, str]]:
        """Make these calls to both, and yield every difference."""
        received = [self.through(request) for request in requests]
        self.house.until_nothing_is_held()
        records = self.records(one.request for one in received)
        for one in received:
            for breach in self._wrong(one, records.get(one.record_id)):
                yield one.request, breach

    def _wrong(self, received: Received, record: dict[str, Any] | None) -> Iterator[str]:
        request, shown = received.request, received.shown
        if request.grant == 0:
            if shown.status != httpx.codes.TOO_MANY_REQUESTS or "conversation_cap_reached" not in shown.error:
                yield f"it was not refused at its cap: {shown}"
            return
        if request.grant is not None and received.grant is not None and received.grant != request.grant:
            yield f"it was granted {received.grant}, not {request.grant}"
        of_engine = request.of_the_engine()
        truth = self.directly(of_engine)
        if truth.status != httpx.codes.OK or truth.error:
            if not request.may_be_refused:
                yield f"the engine itself refuses: {truth.error[:200]}"
            status = truth.status if truth.status != httpx.codes.OK else httpx.codes.BAD_REQUEST
            if shown.status != status or record is not None:
                yield f"the engine refuses by {status} ({truth.error[:200]}), the gateway says {shown}, on record is {record}"
            return
        if not truth.choices and request.may_be_refused:
            if "no_answer" not in shown.error or record is None or record["output_tokens"] or record["charge_nanousd"]:
                yield f"the engine says nothing, the gateway says {shown}, on record is {record}"
            return
        if received.untaken is not None and received.untaken != _taken(request, _body(received.of_engine))[1]:
            yield f"its client does not take it: {received.untaken} of {shown}"
        if shown.status != httpx.codes.OK or shown.error or record is None:
            yield f"the engine answers, the gateway says {shown}, on record is {record}"
            return
        tokens = self.tokens(of_engine)
        if unlike := list(_unlike(shown, truth)):
            yield from (
                _unlike(shown, _shown(request, _body(received.of_engine)))
                if request.tools and request.stream
                else unlike
            )
        end = _end(request, truth, tokens, of_engine.limit)
        if {one.end for one in shown.choices} != {end}:
            yield f"it ended by {[one.end for one in shown.choices]}, not {end}"
        wanted: dict[str, object] = {
            "output_tokens": tokens,
            "billed_output_tokens": tokens,
            "finish": _finish(request, end, tokens),
            "usage_source": "counted" if truth.tokens is None else "upstream",
            "charge_nanousd": 1,
        }
        if truth.input_tokens is not None:
            wanted["input_tokens"] = truth.input_tokens
        if request.n > 1 and request.grant is None and end == "length":
            del wanted["finish"]  # nothing reports the tokens of each choice
        for name, value in wanted.items():
            if record[name] != value:
                yield f"{name} on record is {record[name]}, not {value}"
        if shown.tokens != tokens:
            yield f"its caller is told {shown.tokens} tokens, not {tokens}"


def _taken(request: EngineRequest, raw: bytes) -> tuple[Shown, str | None]:
    """Return an answer as its vendor's SDK reads it, or where the SDK raises, as this file reads it, and the error."""
    try:
        if not request.stream:
            return in_whole(request.endpoint, read_whole(request.endpoint, strict_json(raw))), None
        whole, error = read_stream(request.endpoint, raw)
    except (AssertionError, LookupError, TypeError, ValueError) as untaken:
        return _shown(request, raw), repr(untaken)
    return (in_whole(request.endpoint, whole) if error is None else Shown(error=str(error))), None


def _shown(request: EngineRequest, raw: bytes) -> Shown:
    """Return the facts of an answer, read as leniently as an engine's."""
    return in_whole(request.endpoint, json.loads(raw)) if raw.startswith(b"{") else in_stream(request.endpoint, raw)


class _Wire:
    """Presents recorded bytes as a socket to Python's HTTP parser."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _body(raw: bytes) -> bytes:
    """Return the body of an answer from its raw HTTP bytes."""
    answer = HTTPResponse(_Wire(raw))  # type: ignore[arg-type]
    answer.begin()
    return answer.read()


def _unlike(shown: Shown, truth: Shown) -> Iterator[str]:
    if len(shown.choices) != len(truth.choices):
        yield f"{len(shown.choices)} choices came, not {len(truth.choices)}"
    for ours, its in zip(shown.choices, truth.choices, strict=False):
        if ours.content != its.content:
            yield f"its caller got {ours.content}, the engine says {its.content}"


def _end(request: EngineRequest, truth: Shown, tokens: int | None, grant: int | None) -> str | None:
    """Return how the answer ended: some engines call every response completed, whatever ended it."""
    if request.endpoint == RESPONSES and tokens == grant:
        return "length"
    return truth.choices[0].end


def _finish(request: EngineRequest, end: str | None, tokens: int | None) -> str:
    if end != "length":
        return FINISHES[end or "stop"]
    if request.grant is None or tokens != request.grant * request.n:
        return "context"
    return "caller_limit" if request.grant == request.limit else "cap"
