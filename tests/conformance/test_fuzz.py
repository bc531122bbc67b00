"""Whatever is sent, nothing reaches the model unmetered or with a wider limit than its hold, and nothing is a 500."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.fuzz import house

CASES = 1_500


def test_no_request_however_odd_gets_past_the_meter(tmp_path: Path) -> None:
    """The long run of the same is ``make fuzz``."""
    with house(tmp_path) as running:
        found = running.fuzz(CASES, seed=7)

    assert found.breaches == []
    assert found.reached > CASES / 10, "enough of it has to get through for the comparison to say something"
    assert found.answered == found.records
