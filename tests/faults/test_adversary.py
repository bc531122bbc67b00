"""A caller who knows the code and hangs up wherever that pays obtains what it is billed: ``make fuzz`` in short."""

from __future__ import annotations

import asyncio

from tests.faults.adversary import ESCAPED_MOST, Found, run
from tests.faults.played_house import HOUSES

CALLS = 600


def test_whoever_hangs_up_wherever_it_pays_obtains_what_it_is_billed(valkey_url: str) -> None:
    """This holds in total; a capped conversation obtains at most the cap and one chunk of each simultaneous call."""
    found = asyncio.run(run(valkey_url, CALLS, seed=2))

    assert found.breaches == []
    assert found.escaped <= ESCAPED_MOST
    assert found.left > CALLS / 4
    assert_all_was_played(found)


def assert_all_was_played(found: Found) -> None:
    """Assert that each house had some calls, and that each source of counts was used."""
    assert {house for house, _ in found.sums} == set(HOUSES)
    sources = {"upstream", "continuous", "drained", "tokenizer", "counted", "timed", "granted", "estimate"}
    assert {source for _, source in found.sums} >= sources
