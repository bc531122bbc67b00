"""The mode ``observe``, for a start without a menu: everything is metered, nothing is capped and nothing is charged."""

from __future__ import annotations

from pathlib import Path

import httpx

from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.loop.rig import rig

LONG = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((500,), (1.0,)))


def test_observing_meters_everything_and_caps_and_charges_nothing(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """This holds with a tier whose cap and quota would have cut the call, and without any tier."""
    with rig(valkey_url, sqlite_url, tmp_path, law=LONG, mode="observe") as loop:
        loop.tier("small", conversation_tokens_max=20, period_tokens_max=30, price_nanousd=1_000)
        tiered, untiered = loop.customer("small"), loop.customer()
        body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}]}
        for who in (tiered, untiered):
            answer = httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=who.headers, timeout=30)

            assert answer.status_code == 200, answer.text
            assert answer.json()["choices"][0]["finish_reason"] == "stop"
            (record,) = loop.usage(who)
            assert (record["billed_output_tokens"], record["finish"], record["charge_nanousd"]) == (500, "complete", 0)
        assert [loop.usage(who)[0]["tier"] for who in (tiered, untiered)] == ["small", None]
