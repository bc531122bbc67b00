"""An engine and a gateway before it, asked the same: what each says, what is on record, what of it is not as it must be."""

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
from tests.engines.asks import Ask
from tests.engines.engines import Engine
from tests.engines.said import Said, in_stream, in_whole
from tests.faults.wire import Wire
from tests.loop.rig import Rig, Sold
from tests.wire.heard import heard_stream, heard_whole, strict_json

PATIENCE_S = 300
NO_IDLE = httpx.Limits(max_keepalive_connections=0)
"""Engines close idle connections when they like."""

OPEN = "open"
FINISHES = {"stop": "complete", "tool_calls": "tool_calls", "content_filter": "filtered"}


@dataclass(frozen=True)
class Heard:
    """What a caller of the gateway got, and what the engine said to the gateway for it.

    ``untaken`` is what its vendor's SDK raises at that.
    """

    ask: Ask
    said: Said
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
    """One engine at ``url``, the gateway before it, and the wire that is between them."""

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

    def _directly(self, ask: Ask) -> Said:
        """Return what the engine says."""
        answer = self.client.post(self.url + ask.endpoint, json=ask.body())
        if answer.status_code != httpx.codes.OK:
            return Said(status=answer.status_code, error=answer.text)
        return _said(ask, answer.content)

    def tokens(self, ask: Ask) -> int | None:
        """Return what the engine made for all choices: of several, some engines count one, and all are alike here."""
        one = replace(ask, n=1)
        said = self.directly(one).tokens
        each = self.directly(replace(one, stream=False)).tokens if said is None else said
        return None if each is None else each * ask.n

    def through(self, ask: Ask, conversation: str | None = None) -> Heard:
        """Return what a caller of the gateway hears by its vendor's SDK."""
        headers = self.customer(ask.cap).headers | ({"x-conversation-id": conversation} if conversation else {})
        answer = self.client.post(self.house.url + ask.endpoint, json=ask.body(), headers=headers)
        if answer.status_code != httpx.codes.OK:
            return Heard(ask, Said(status=answer.status_code, error=answer.text), answer.headers, None, b"")
        said, untaken = _taken(ask, answer.content)
        return Heard(ask, said, answer.headers, untaken, bytes(self.between.said))

    def records(self, asks: Iterable[Ask]) -> dict[str, dict[str, Any]]:
        """Return what is on record of the customers of these calls, by id."""
        customers = {self.customer(ask.cap) for ask in asks}
        return {record["id"]: record for who in customers for record in self.house.usage(who)}

    def breaches(self, asks: Iterable[Ask]) -> Iterator[tuple[Ask, str]]:
        """Make these calls of both, and yield what is not as it must be."""
        heard = [self.through(ask) for ask in asks]
        self.house.until_nothing_is_held()
        records = self.records(one.ask for one in heard)
        for one in heard:
            for breach in self._wrong(one, records.get(one.record_id)):
                yield one.ask, breach

    def _wrong(self, heard: Heard, record: dict[str, Any] | None) -> Iterator[str]:
        ask, said = heard.ask, heard.said
        if ask.grant == 0:
            if said.status != httpx.codes.TOO_MANY_REQUESTS or "conversation_cap_reached" not in said.error:
                yield f"it was not refused at its cap: {said}"
            return
        if ask.grant is not None and heard.grant is not None and heard.grant != ask.grant:
            yield f"it was granted {heard.grant}, not {ask.grant}"
        of_engine = ask.of_the_engine()
        truth = self.directly(of_engine)
        if truth.status != httpx.codes.OK or truth.error:
            if not ask.may_be_refused:
                yield f"the engine itself refuses: {truth.error[:200]}"
            status = truth.status if truth.status != httpx.codes.OK else httpx.codes.BAD_REQUEST
            if said.status != status or record is not None:
                yield f"the engine refuses by {status} ({truth.error[:200]}), the gateway says {said}, on record is {record}"
            return
        if not truth.choices and ask.may_be_refused:
            if "no_answer" not in said.error or record is None or record["output_tokens"] or record["charge_nanousd"]:
                yield f"the engine says nothing, the gateway says {said}, on record is {record}"
            return
        if heard.untaken is not None and heard.untaken != _taken(ask, _body(heard.of_engine))[1]:
            yield f"its client does not take it: {heard.untaken} of {said}"
        if said.status != httpx.codes.OK or said.error or record is None:
            yield f"the engine answers, the gateway says {said}, on record is {record}"
            return
        tokens = self.tokens(of_engine)
        if unlike := list(_unlike(said, truth)):
            yield from _unlike(said, _said(ask, _body(heard.of_engine))) if ask.tools and ask.stream else unlike
        end = _end(ask, truth, tokens, of_engine.limit)
        if {one.end for one in said.choices} != {end}:
            yield f"it ended by {[one.end for one in said.choices]}, not {end}"
        wanted: dict[str, object] = {
            "output_tokens": tokens,
            "billed_output_tokens": tokens,
            "finish": _finish(ask, end, tokens),
            "usage_source": "counted" if truth.tokens is None else "upstream",
            "charge_nanousd": 1,
        }
        if truth.input_tokens is not None:
            wanted["input_tokens"] = truth.input_tokens
        if ask.n > 1 and ask.grant is None and end == "length":
            del wanted["finish"]  # of several choices nobody says what each has had
        for name, value in wanted.items():
            if record[name] != value:
                yield f"{name} on record is {record[name]}, not {value}"
        if said.tokens != tokens:
            yield f"its caller is told {said.tokens} tokens, not {tokens}"


def _taken(ask: Ask, raw: bytes) -> tuple[Said, str | None]:
    """Return what an answer says by its vendor's SDK; by ourselves where that raises, and what it raises."""
    try:
        if not ask.stream:
            return in_whole(ask.endpoint, heard_whole(ask.endpoint, strict_json(raw))), None
        whole, error = heard_stream(ask.endpoint, raw)
    except (AssertionError, LookupError, TypeError, ValueError) as untaken:
        return _said(ask, raw), repr(untaken)
    return (in_whole(ask.endpoint, whole) if error is None else Said(error=str(error))), None


def _said(ask: Ask, raw: bytes) -> Said:
    """Return what an engine's answer says, or one that is read as leniently."""
    return in_whole(ask.endpoint, json.loads(raw)) if raw.startswith(b"{") else in_stream(ask.endpoint, raw)


class _Wire:
    """Says what went over a wire to who reads HTTP."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _body(raw: bytes) -> bytes:
    """Return the body of an answer as it went over the wire."""
    answer = HTTPResponse(_Wire(raw))  # type: ignore[arg-type]
    answer.begin()
    return answer.read()


def _unlike(said: Said, truth: Said) -> Iterator[str]:
    if len(said.choices) != len(truth.choices):
        yield f"{len(said.choices)} choices came, not {len(truth.choices)}"
    for ours, its in zip(said.choices, truth.choices, strict=False):
        if ours.content != its.content:
            yield f"its caller got {ours.content}, the engine says {its.content}"


def _end(ask: Ask, truth: Said, tokens: int | None, grant: int | None) -> str | None:
    """Return how the answer ended: some engines call each response completed, whatever ended it."""
    if ask.endpoint == RESPONSES and tokens == grant:
        return "length"
    return truth.choices[0].end


def _finish(ask: Ask, end: str | None, tokens: int | None) -> str:
    if end != "length":
        return FINISHES[end or "stop"]
    if ask.grant is None or tokens != ask.grant * ask.n:
        return "context"
    return "caller_limit" if ask.grant == ask.limit else "cap"
