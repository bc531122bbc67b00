"""The pauses between the starts of a child that keeps ending."""

from __future__ import annotations

from itertools import accumulate, repeat

from gateway.runtime.restarts import CALM_S, Failures


def test_pauses_double_up_to_a_bound() -> None:
    """A child that ends at once is started at once, and then ever less often, but at least every five seconds."""
    failures = list(accumulate(repeat(0.0, 8), Failures.after, initial=Failures()))[1:]

    assert [failure.pause_s for failure in failures] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_calm_time_is_forgiven() -> None:
    """Who ran half a minute before it ended begins with the first pause again."""
    assert Failures(7).after(CALM_S) == Failures(1)
    assert Failures(7).after(CALM_S - 1) == Failures(8)


def test_a_thousand_failures_still_have_a_pause() -> None:
    """No row of failures is too long to count with."""
    assert Failures(10_000).pause_s == 5.0
