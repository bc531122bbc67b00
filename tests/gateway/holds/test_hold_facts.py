"""Claims about what a hold keeps of its call, so that anyone can write its record: also another version."""

from __future__ import annotations

import json

from gateway.holds.hold import Facts


def test_what_a_later_version_keeps_of_a_call_is_read_without_what_only_that_one_knows() -> None:
    """A bookkeeper that meets a newer worker's hold bills it, and the holds behind it."""
    facts = Facts(**dict.fromkeys(Facts.__slots__, "x") | {"notice_percents": (80, 100)})  # type: ignore[arg-type]
    later = json.dumps({**json.loads(facts.to_json()), "mood": "sunny"})

    assert Facts.from_json(later) == facts
