"""A caller who knows the code and hangs up wherever it pays obtains what it is billed: a part of what ``make fuzz`` plays."""

from __future__ import annotations

import asyncio

from tests.faults.adversary import ESCAPED_MOST, Found, run
from tests.faults.played_house import HOUSES

CALLS = 600


def test_whoever_hangs_up_wherever_it_pays_obtains_what_it_is_billed(valkey_url: str) -> None:
    """In total, and of a capped conversation the cap and one chunk of each call that goes on at the time."""
    found = asyncio.run(run(valkey_url, CALLS, seed=2))

    assert found.breaches == []
    assert found.escaped <= ESCAPED_MOST
    assert found.left > CALLS / 4
    assert_all_was_played(found)


def assert_all_was_played(found: Found) -> None:
    """See that each house counted some calls, and that each kind of count was one's."""
    assert {house for house, _ in found.sums} == set(HOUSES)
    sources = {"upstream", "continuous", "drained", "tokenizer", "counted", "timed", "granted", "estimate"}
    assert {source for _, source in found.sums} >= sources
