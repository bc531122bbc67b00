"""Claude Code and Codex CLI, unmodified, do a task that needs a tool, in each profile that speaks their format.

``python -m tests.agents.run`` first installs both from npm (800 MB under .agents), then prints a line for each case,
and exits with 1 if a case broke a promise.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.serving.upstream.profiles import PROFILES
from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.agents.agents import AGENTS, Agent, AgentRun, install
from tests.gateway.demo.test_demo import demo
from tests.loop.rig import Rig, Sold, rig
from tests.servers import short_directory, valkey_in

CALL_TOKENS, ANSWER_TOKENS = 6, 12
"""Tokens of the tool call, and of the answer after it."""

OPENING = "This answer is simulated:"
CUT = ("reached its cap", "max_output_tokens")
"""How the agents report the cap: Claude Code shows the gateway's sentence, Codex the format's reason."""

PRICE = 9
EVERYTHING: dict[str, Any] = {"model_aliases": ("*",), "hosted_tools": "drop"}


@contextmanager
def house(profile: str) -> Iterator[Rig]:
    law = Law(
        tokens_per_s=float("inf"),
        first_token_s=0,
        lengths=Table((ANSWER_TOKENS,), (1.0,)),
        tool_calls=1,
        profile=profile,
    )
    with (
        tempfile.TemporaryDirectory() as data,
        short_directory() as beside,
        valkey_in(beside) as redis_url,
        rig(redis_url, f"sqlite:///{data}/ledger", Path(data), law=law, upstream_profile=profile, **EVERYTHING) as it,
    ):
        it.tier("open", price_nanousd=PRICE)
        it.tier("cut-in-its-call", conversation_tokens_max=CALL_TOKENS // 2, price_nanousd=PRICE)
        it.tier("cut-in-its-answer", conversation_tokens_max=CALL_TOKENS + 3, price_nanousd=PRICE)
        it.tier("used-up", period_tokens_max=0)
        yield it


def breaches_of(run: AgentRun, tier: str, who: Sold, it: Rig) -> list[str]:
    """Return the faults in the records and in the words shown to the user."""
    it.until_nothing_is_held()
    records = [one for one in it.usage(who) if one["endpoint"] in ("/v1/messages", "/v1/responses")]
    if tier == "used-up":
        reads_why = any(words in run.words for words in ("The period's 0 tokens", "Quota exceeded"))
        return [] if reads_why and not records else [f"its user does not read why: {run.words!r}"]
    tokens = {"open": CALL_TOKENS + ANSWER_TOKENS, "cut-in-its-call": 3, "cut-in-its-answer": 9}[tier]
    finish = "complete" if tier == "open" else "cap"
    shown = (OPENING,) if tier == "open" else CUT
    wrong = {
        "it went well and should not have, or did not": run.went_well != (tier == "open"),
        f"its user does not read why: {run.words!r}": not any(words in run.words for words in shown),
        "its calls are several conversations": len({one["conversation"] for one in records}) != 1,
        f"not {tokens} tokens are on record": sum(one["output_tokens"] for one in records) != tokens,
        f"its last call did not end by {finish}": not records or records[-1]["finish"] != finish,
        "the price was not charged once": sum(one["charge_nanousd"] for one in records) != PRICE,
    }
    return [what for what, is_so in wrong.items() if is_so]


def in_each_profile(agent: Agent, profiles: list[str]) -> list[str]:
    found = []
    for profile in [name for name in profiles if agent.endpoint in PROFILES[name].speaks]:
        with house(profile) as it:
            for tier in ("open", "cut-in-its-call", "cut-in-its-answer", "used-up"):
                who = it.customer(tier)
                with tempfile.TemporaryDirectory() as directory:
                    run = agent.do(Path(directory), it.url, who.key)
                breaches = breaches_of(run, tier, who, it)
                print(f"{agent.name:12} {profile:9} {tier:18} {run.words[:70]!r}", *breaches, sep="\n  ", flush=True)
                if breaches:
                    print(run.everything)
                found += breaches
    return found


def beside_the_demo(agent: Agent) -> list[str]:
    """Have the agent do the task with a key of the demo, whose answers have any length, so its cap may be reached."""
    with tempfile.TemporaryDirectory() as directory, demo("--no-traffic", cwd=Path(directory)) as running:
        url = running.until_line("Gateway").split()[-1]
        key = running.until_line("A customer key").split()[-1]
        run = agent.do(Path(directory) / "agent", url, key)
        used = httpx.get(f"{url}/v1/account/usage", headers={"authorization": f"Bearer {key}"}, timeout=30).json()
    shown = (OPENING,) if run.went_well else CUT
    breaches = [] if used["data"] and any(words in run.words for words in shown) else [run.everything]
    print(f"{agent.name:12} make demo                    {run.words[:70]!r}", *breaches, sep="\n  ", flush=True)
    return breaches


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", nargs="*", default=list(PROFILES), choices=list(PROFILES))
    arguments = parser.parse_args()
    install()
    breaches = []
    for agent in AGENTS:
        breaches += in_each_profile(agent, arguments.profiles) + beside_the_demo(agent)
    print(f"{len(breaches)} breaches." if breaches else "Every promise held.")
    return 1 if breaches else 0


if __name__ == "__main__":
    raise SystemExit(main())
