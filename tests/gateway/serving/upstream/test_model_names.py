"""Callers may use for the one model its own name, the listed names, and all names with a listed prefix."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.serving.upstream.endpoint import Names
from tests.loop.rig import rig

ASKED = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest.mark.parametrize(
    ("names_given", "known", "unknown"),
    [
        (["a"], ["a"], ["", "A", "aa", "a*"]),
        (["a", "claude-*"], ["a", "claude-", "claude-opus-9"], ["claude", "my-claude-1", ""]),
        (["a", "*"], ["a", "", "whatever"], []),
        (["a/b*", "*c"], ["a/b", "a/b-1", "*c"], ["abc", "a"]),
    ],
)
def test_a_name_is_known_whole_or_by_its_beginning(
    names_given: list[str], known: list[str], unknown: list[str]
) -> None:
    names = Names(names_given)

    assert all(name in names for name in known)
    assert not any(name in names for name in unknown)


def test_names_with_an_open_end_are_served_and_not_listed(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    with rig(valkey_url, sqlite_url, tmp_path, model_aliases=("gpt-4o", "claude-*")) as loop:
        loop.tier("open")
        who = loop.customer("open").headers
        listed = httpx.get(f"{loop.url}/v1/models", headers=who).json()["data"]
        one = httpx.get(f"{loop.url}/v1/models/claude-opus-9", headers=who)
        called = {
            name: httpx.post(f"{loop.url}/v1/chat/completions", json={"model": name, **ASKED}, headers=who)
            for name in ("claude-opus-9", "gpt-5")
        }

    assert [model["id"] for model in listed] == ["aligned-1", "gpt-4o"]
    assert (one.status_code, one.json()["id"]) == (200, "claude-opus-9")
    assert called["claude-opus-9"].json()["model"] == "claude-opus-9"
    assert called["gpt-5"].status_code == 404
