"""A window and its open holds add up, or it is said by how much they do not."""

from __future__ import annotations

import pytest

from gateway.holds.maintenance.census import Census, Held, fault
from gateway.holds.store.packing import WindowState
from gateway.holds.store.redis_keys import bucket_of, state, window
from tests.gateway.holds.harness import GENERATION, holds_harness

TWO = [Held("w", 30, 4), Held("w", 10, 1)]


@pytest.mark.parametrize(
    ("found", "holds", "expected"),
    [
        (WindowState(), [], None),
        (WindowState(used=60, held=40, spend_used=5, spend_held=5, tokens_max=100, spend_max=10), TWO, None),
        (WindowState(held=41, spend_held=5), TWO, "41 tokens are held, its 2 open holds have 40"),
        (WindowState(held=40, spend_held=4), TWO, "4 nano-units are held, its 2 open holds have 5"),
        (WindowState(used=-1), [], "used is -1"),
        (WindowState(spend_used=-2), [], "spend_used is -2"),
        (WindowState(used=61, held=40, spend_held=5, tokens_max=100), TWO, "61 tokens used and 40 held are over 100"),
        (
            WindowState(held=40, spend_used=6, spend_held=5, spend_max=10),
            TWO,
            "6 nano-units spent and 5 held are over 10",
        ),
        (WindowState(used=1, tokens_max=0), [], "1 tokens used and 0 held are over 0"),
    ],
)
def test_a_window_is_told_by_what_is_wrong_with_it(found: WindowState, holds: list[Held], expected: str | None) -> None:
    """Both sides of each limit, and each amount that can be off."""
    assert fault(found, holds) == expected


async def test_holds_are_counted_with_their_windows_at_one_moment(valkey_url: str) -> None:
    """Open holds and those billed at their checkpoint, of customers who were not asked about, too."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("only", price_nanousd=5, period_tokens_max=1000)
        for name in ("acme", "other"):
            harness.customer(name, "only")
        await harness.play("""
            reserve c1 acme 600        -> granted 600
            reserve c2 acme 400        -> granted 400
            reserve d1 other 10        -> granted 10
            settle c1 450              -> charged 5
        """)
        census = Census(harness.blocking, lambda: GENERATION)

        count = census.take([window(bucket_of("nobody"), "nobody", 0)])

        assert len(count.windows) == 3
        assert set(count.windows.values()) == {None}
        assert (sum(count.holds.values()), sum(count.tokens.values())) == (2, 410)
        harness.blocking.hset(state(bucket_of("acme")), "generation", "8")
        assert len(census.take([]).windows) == 1  # what is being rebuilt is not counted
