"""Claims about what a hold keeps of its call, so that anyone can write its record: also another version."""

from __future__ import annotations

import json

import pytest

from gateway.holds.admission import keys_of_call
from gateway.holds.hold import FACTS, Facts
from gateway.holds.store import redis_keys
from tests.gateway.holds.harness import holds_harness


def test_what_a_later_version_keeps_of_a_call_is_read_without_what_only_that_one_knows() -> None:
    """A bookkeeper that meets a newer worker's hold bills it, and the holds behind it."""
    facts = Facts(**dict.fromkeys(FACTS, "x") | {"notice_percents": (80, 100)})  # type: ignore[arg-type]
    later = json.dumps({**json.loads(facts.to_json()), "mood": "sunny"})

    assert Facts.from_json(later) == facts


@pytest.mark.parametrize("limits", [{}, {"end_user_period_tokens_max": 1_000}])
async def test_a_call_is_admitted_with_every_fact_there_is(valkey_url: str, limits: dict[str, int]) -> None:
    """The facts of a call are those of its terms and its own: one that neither has would be missed at its record only."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("open", conversation_tokens_max=1_000, **limits)
        harness.customer("acme", "open")
        hold = await harness.reserve("c1", "acme", 100)

    assert set(vars(hold.facts)) == set(FACTS)
    assert Facts.from_json(hold.facts.to_json()) == hold.facts


@pytest.mark.parametrize("conversation", ["talk", "talk:1", "", "{b00}:conversation:acme:"])
def test_the_remembered_keys_of_a_call_are_its_keys(conversation: str) -> None:
    for _ in range(2):
        assert keys_of_call("ab", "acme", 7, conversation) == redis_keys.of_call("ab", "acme", 7, conversation)
