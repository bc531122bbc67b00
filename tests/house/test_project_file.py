"""``pyproject.toml`` gives a reason for each required library."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.house.files import ROOT

TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT = tomllib.loads(TEXT)
REQUIREMENTS = [
    *PROJECT["project"]["dependencies"],
    *(each for extra in PROJECT["project"].get("optional-dependencies", {}).values() for each in extra),
    *(each for group in PROJECT["dependency-groups"].values() for each in group if isinstance(each, str)),
]


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_each_library_has_a_lower_bound_and_a_word_on_why(requirement: str) -> None:
    """The line of a library says what it is for, and from which version on it is known to work."""
    [line] = [line for line in TEXT.splitlines() if line.strip().startswith(f'"{requirement}"')]
    _, _, why = line.partition("#")

    assert ">=" in requirement
    assert re.search(r"\w+ \w+|\w{4,}", why), f"{requirement} has no reason beside it"
