"""Mutated requests get no answer that belongs to another, reach nothing unmetered and break nothing."""

from __future__ import annotations

from random import Random

from tests.door.corpus import Names
from tests.door.house import House
from tests.door.mutations import cut, mutated
from tests.door.stranger import storm

MUTATIONS = 360
SEED = 7
NAMES = Names("k" * 46, "k" * 46, "a" * 43, "m" * 40, "m" * 33)


def test_mutated_requests_get_nothing_that_is_not_theirs(door: House) -> None:
    """``make door`` is the long run."""
    found = storm(door, range(MUTATIONS), SEED)

    assert found.breaches == []
    assert found.plays == MUTATIONS
    assert found.calls == found.records
    assert found.statuses[200] > MUTATIONS / 5, "enough requests must get through for the comparison to mean something"
    assert found.statuses[400] > MUTATIONS / 5


def test_a_mutation_is_the_same_for_the_same_chance() -> None:
    """A finding can be reproduced."""
    for number in range(50):
        first, again = Random(number), Random(number)
        raw = mutated(first, NAMES)

        assert raw == mutated(again, NAMES)
        assert b"".join(cut(first, raw)) == raw
