"""Plays mutated transcripts in this process, and checks every promise on their results."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

from gateway.serving.dialects.responses import Responses
from gateway.serving.upstream.profiles import PROFILES
from tests.wire.alone import Alone, CallResult, UpstreamAnswer
from tests.wire.mutations import Mutated, mutated
from tests.wire.promises import agree, billed_rightly, read_answer, recorded_as_answered
from tests.wire.sdk_models import DONE, STREAMS, events, responses_state, strict_json
from tests.wire.transcripts import TRANSCRIPTS

CLIENTS = {**STREAMS, Responses.endpoint: responses_state}
PLAYED = [one for one in TRANSCRIPTS if one.streamed and one.streamed.status == 200]
HEARD = 10
"""One case in this many is also read by its vendor's own client, which takes ten times as long as all other checks."""

UNREADABLE = "Unable to parse tool parameter JSON from model"
"""Anthropic's message for tool arguments that are not JSON, as when their first piece was dropped: not a breach."""

PART = 500
KIND = 60
"""How many characters of a breach identify its kind."""

STREAM = {"content-type": "text/event-stream"}


@dataclass
class Found:
    """The result of a run."""

    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    """How often each kind of breach was found."""
    breaches: dict[str, str] = field(default_factory=dict)
    """The first breach of each kind, with the smallest upstream answer that causes it."""

    def add(self, part: Found) -> None:
        """Add the findings of another process."""
        self.cases += part.cases
        self.kinds += part.kinds
        self.breaches = {**part.breaches, **self.breaches}


class Fuzz:
    """Two houses for each profile: one asks the upstream as its callers ask, the other always for a stream."""

    def __init__(self) -> None:
        named = {one.profile: PROFILES[one.profile] for one in PLAYED}
        self._houses = {name: (Alone(profile), Alone(profile, always_streams=True)) for name, profile in named.items()}

    async def breach(self, case: Mutated, *, hears: bool = False) -> str | None:
        """Return which promise a case breaks, or None; if ``hears``, its vendor's client reads the stream, too."""
        try:
            await self._play(case, hears=hears)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the breach
            lines = str(error).splitlines() or [""]
            return f"{type(error).__name__}: {lines[0][:400]}" + (f" {lines[1:6]}" if len(lines) > 1 else "")
        return None

    async def _play(self, case: Mutated, *, hears: bool) -> None:
        endpoint, request = case.transcript.endpoint, case.transcript.request
        as_asked, always = self._houses[case.transcript.profile]

        async def call(alone: Alone, pieces: tuple[bytes, ...], *, stream: bool) -> CallResult:
            answer = UpstreamAnswer(pieces, STREAM, is_whole=case.is_whole)
            return await alone.call(endpoint, request, answer, stream=stream, most=case.most)

        streamed = await call(as_asked, case.pieces, stream=True)
        whole = await call(always, (case.body,), stream=False)
        of_stream = read_answer(endpoint, streamed, is_typed=not case.retyped)
        billed_rightly(streamed, of_stream, came_whole=not case.is_stream)
        if case.is_stream:
            of_whole = read_answer(endpoint, whole, is_typed=not case.retyped)
            billed_rightly(whole, of_whole)
            agree(streamed, of_stream, whole, of_whole)
        else:
            recorded_as_answered(endpoint, whole)
        if hears and of_stream.error is None and not case.retyped:
            _hear(endpoint, streamed.body)
        if case.cuts:
            again = await call(as_asked, (case.body,), stream=True)
            assert again.body == streamed.body, "cuts change nothing"
            other = await call(as_asked, case.pieces, stream=False)
            assert (other.status, other.body) == (whole.status, whole.body), "both ways of asking agree"

    async def smallest(self, case: Mutated, breach: str) -> Mutated:
        """Return a case with as few events as possible that breaks the same promise."""
        for simpler in ({"cuts": ()}, {"end": None}, {"is_whole": True}, {"most": 10_000}):
            case = await self._simpler(case, breach, **simpler)
        place = 0
        while place < len(case.events):
            less = await self._simpler(case, breach, events=case.events[:place] + case.events[place + 1 :])
            place += less is case
            case = less
        return case

    async def _simpler(self, case: Mutated, breach: str, **simpler: Any) -> Mutated:
        other = replace(case, **simpler)
        found = None if other == case else await self.breach(other, hears=True)
        return other if found is not None and found[:30] == breach[:30] else case


def _hear(endpoint: str, body: bytes) -> None:
    """Read a stream with its vendor's own client."""
    try:
        CLIENTS[endpoint]([strict_json(data) for data in events(body) if data != DONE])
    except ValueError as error:
        if UNREADABLE not in str(error):
            raise


class _Caught(logging.Handler):
    """Keeps the last traceback that the journey logged."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else record.getMessage()


def run(numbers: range, seed: int) -> Found:
    """Play the cases with these numbers."""
    return asyncio.run(_run(numbers, seed))


def run_all(cases: int, seed: int, workers: int) -> Found:
    """Play ``cases`` cases in ``workers`` processes."""
    found = Found()
    parts = [range(begin, min(begin + PART, cases)) for begin in range(0, cases, PART)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for part in pool.map(run, parts, [seed] * len(parts)):
            found.add(part)
    return found


async def _run(numbers: range, seed: int) -> Found:
    caught, log = _Caught(), logging.getLogger("tokencap.serving")
    log.addHandler(caught)
    log.propagate = False
    fuzz, found = Fuzz(), Found()
    try:
        for number in numbers:
            case = mutated(PLAYED[number % len(PLAYED)], random.Random(seed * 1_000_003 + number))
            caught.last = ""
            breach = await fuzz.breach(case, hears=number % HEARD == 0)
            found.cases += 1
            if breach is None:
                continue
            kind = breach[:KIND]
            found.kinds[kind] += 1
            if found.kinds[kind] == 1:
                small = await fuzz.smallest(case, breach)
                found.breaches[kind] = (
                    f"case {number}, like {case.transcript.name}: {breach}\n{caught.last}{small.shown}"
                )
    finally:
        log.removeHandler(caught)
        log.propagate = True
    return found
