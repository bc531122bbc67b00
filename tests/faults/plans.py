"""What happens in each call of a soak: its customer, the upstream's script, and whether the caller leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.faults.truth import Script

RATE = 100.0
TOKENS_MOST = 150
OVER_MOST = 3 * TOKENS_MOST
"""Tokens of a whole answer that exceeds every cap: an answer that may be requested whole must have an end."""


@dataclass(frozen=True)
class Plan:
    """One call."""

    number: int
    tier: str
    script: Script
    fault: str
    """The name of the fault in the report; empty for a call without a fault."""
    stream: bool
    choices: int
    leaves_after: int | None = None
    """Tokens after which the caller hangs up."""


FAULTS: dict[str, Script] = {
    "hang before head": Script(fault="hang before head"),
    "hang before token": Script(fault="hang before token"),
    "hang": Script(fault="hang"),
    "error event": Script(fault="error event"),
    "reset": Script(fault="reset"),
    "cut": Script(fault="cut"),
    "not json": Script(fault="not json"),
    "status": Script(fault="status", status=500),
    "no done": Script(fault="no done"),
    "cap ignored": Script(tokens=10**6, obeys=False),
    "usage missing": Script(usage="missing"),
    "usage null": Script(usage="null"),
    "usage zero": Script(usage="zero"),
    "usage negative": Script(usage="negative"),
    "usage huge": Script(usage="huge"),
    "usage twice": Script(usage="twice"),
    "usage cumulative": Script(usage="cumulative"),
    "usage per chunk": Script(usage="per chunk"),
    "usage in the middle": Script(usage="middle"),
    "usage above": Script(usage="above"),
    "usage with a wrong total": Script(usage="wrong total"),
    "several tokens a chunk": Script(per_chunk=3),
    "torn bytes": Script(torn=7),
    "no stream": Script(whole=True),
    "caller gone": Script(),
}


def plans(calls: int, chance: random.Random) -> Iterator[Plan]:
    """Yield ``calls`` plans, every second one with a fault."""
    for number in range(calls):
        tier = chance.choices(("open", "capped", "scarce"), (6, 3, 1))[0]
        plain = Plan(number, tier, Script(), "", chance.random() < 0.7, chance.choices((1, 3), (9, 1))[0])
        tokens = chance.randint(1, TOKENS_MOST)
        if number % 2 == 0:
            yield replace(plain, script=Script(tokens=tokens, tokens_per_s=RATE))
            continue
        fault = chance.choice(list(FAULTS))
        script = FAULTS[fault]
        at = chance.randrange(tokens) // script.per_chunk * script.per_chunk
        script = replace(script, tokens=tokens if script.obeys else script.tokens, tokens_per_s=RATE, at=at)
        if fault == "cap ignored":
            plain = replace(plain, tier="capped")
        leaves_after = chance.randint(1, tokens) if fault == "caller gone" else None
        stream = plain.stream or leaves_after is not None
        if not stream:
            script = replace(script, tokens=min(script.tokens, OVER_MOST))
        yield replace(plain, script=script, fault=fault, stream=stream, leaves_after=leaves_after)
