"""Every request, in any pieces and through any front end, gets its own answer and no other."""

from __future__ import annotations

import pytest

from tests.door.corpus import Case, cases, themes
from tests.door.front_ends import DIRECT, ROUTES
from tests.door.house import House
from tests.door.player import in_bytes, play, sampled, whole

CASES_MIN = 300
SEED = 17
ALWAYS = (DIRECT, "nginx-upgrade", "haproxy")
"""Routes that get every case in one piece; the others get every third case."""

every_theme = pytest.mark.parametrize("theme", themes())
every_route = pytest.mark.parametrize("route", ROUTES)


def share(theme: str, route: str, of: int) -> tuple[Case, ...]:
    """Return the route's share of a theme, if the cases are dealt out to ``of`` routes."""
    return cases(theme)[ROUTES.index(route) % of :: of]


@every_route
@every_theme
def test_every_case_in_one_piece(door: House, theme: str, route: str) -> None:
    played = cases(theme) if route in ALWAYS else share(theme, route, 3)

    assert play(door, route, played, whole).breaches == []


@every_theme
def test_every_case_byte_by_byte(door: House, theme: str) -> None:
    assert play(door, DIRECT, cases(theme), in_bytes).breaches == []


@every_route
@every_theme
def test_every_case_in_two_pieces(door: House, theme: str, route: str) -> None:
    """Each case is cut at one random place, on one route; ``make door`` cuts each case at every place."""
    assert play(door, route, share(theme, route, len(ROUTES)), sampled(1, SEED)).breaches == []


def test_the_corpus_is_as_large_as_it_says() -> None:
    """No two cases have the same name."""
    names = [(theme, case.name) for theme in themes() for case in cases(theme)]

    assert len(set(names)) == len(names) >= CASES_MIN
