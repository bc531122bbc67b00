"""Whatever is sent, no call reaches the model unmetered or with a limit above its hold, and no answer is a 500."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.fuzz import house

CASES = 1_500


def test_no_request_however_odd_gets_past_the_meter(tmp_path: Path) -> None:
    """``make fuzz`` is the long run."""
    with house(tmp_path) as running:
        found = running.fuzz(CASES, seed=7)

    assert found.breaches == []
    assert found.reached > CASES / 10, "enough requests must get through for the comparison to mean something"
    assert found.answered == found.records
