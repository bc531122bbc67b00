"""A verb is sent with the shared parts that it uses, and with no others: each function that it makes costs Redis time."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from gateway.holds.store.scripts import source

LUA = files("gateway.holds") / "lua"
PARTS = (LUA / "shared.lua").read_text("utf-8").strip().split("\n\n")
NAMES = [name for part in PARTS for name in re.findall(r"^local (?:function )?(\w+)", part, re.MULTILINE)]
VERBS = sorted(
    path.name.removesuffix(".lua")
    for folder in (LUA, LUA / "maintenance")
    for path in folder.iterdir()
    if path.name.endswith(".lua") and path.name != "shared.lua"
)


def test_each_shared_part_defines_one_name() -> None:
    assert len(NAMES) == len(set(NAMES)) == len(PARTS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_each_shared_name_that_it_uses_before_its_first_use(verb: str) -> None:
    """Comments aside, a name that is used is defined above, and a name that is defined is used below."""
    code = re.sub(r"--.*", "", source(verb))

    for name in NAMES:
        uses = [found.start() for found in re.finditer(rf"\b{name}\b", code)]
        defined = re.search(rf"^local (?:function )?{name}\b", code, re.MULTILINE)
        assert bool(uses) == bool(defined), name
        if defined:
            assert uses[0] == defined.start() + defined[0].index(name), name


@pytest.mark.parametrize(("verb", "functions"), [("reserve", 6), ("settle", 7)])
def test_a_call_of_a_customer_makes_few_functions(verb: str, functions: int) -> None:
    """Redis makes them again for each call: thirteen more cost it 8,000 instructions."""
    assert len(re.findall(r"^local function", source(verb), re.MULTILINE)) <= functions
