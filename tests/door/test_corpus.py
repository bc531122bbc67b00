"""Whatever is sent, in whichever pieces and through whichever front end, gets its own answer and no other."""

from __future__ import annotations

import pytest

from tests.door.corpus import cases, themes
from tests.door.front_ends import DIRECT, ROUTES
from tests.door.house import House
from tests.door.player import in_bytes, play, sampled, whole

CASES_MIN = 10
CUTS = 1
SEED = 17


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("theme", themes())
def test_every_case_in_one_piece(door: House, theme: str, route: str) -> None:
    assert play(door, route, cases(theme), whole).breaches == []


@pytest.mark.parametrize("theme", themes())
def test_every_case_byte_by_byte(door: House, theme: str) -> None:
    assert play(door, DIRECT, cases(theme), in_bytes).breaches == []


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("theme", themes())
def test_every_case_in_two_pieces(door: House, theme: str, route: str) -> None:
    assert play(door, route, cases(theme), sampled(CUTS, SEED)).breaches == []


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert sum(len(cases(theme)) for theme in themes()) >= CASES_MIN
