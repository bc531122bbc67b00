"""A worker that has served a customer uses no cached terms that another worker has changed since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig
from tests.waiting import until


@pytest.fixture(scope="module")
def shared_loop(shared: tuple[str, str, Path]) -> Iterator[Rig]:
    """Two workers; the admin's calls go to the first."""
    with rig(*shared, gateways=2) as running:
        yield running


@pytest.fixture
def loop(shared_loop: Rig) -> Rig:
    """The loop that all tests share, each with a customer of its own; the tiers are set back to their initial terms."""
    shared_loop.tier("open", conversation_tokens_max=400, period_tokens_max=100_000)
    shared_loop.tier("other", conversation_tokens_max=90)
    return shared_loop


def say(loop: Rig, who: Sold, **body: Any) -> httpx.Response:
    """Call the second worker, in a conversation of its own."""
    request = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], **body}
    return httpx.post(f"{loop.urls[1]}/v1/chat/completions", json=request, headers=who.headers, timeout=30)


def warm(loop: Rig, **fields: Any) -> Sold:
    """Return a customer whom the second worker has served."""
    who = loop.customer("open", **fields)
    assert say(loop, who, max_tokens=20).status_code == 200
    return who


def change(loop: Rig, who: Sold, **fields: Any) -> None:
    answer = loop.admin.patch(f"/admin/customers/{who.id}", json=fields)
    assert answer.status_code == 200, answer.text


def test_a_customer_that_is_blocked_makes_no_call_more(loop: Rig) -> None:
    who = warm(loop)
    change(loop, who, status="blocked")

    refused = say(loop, who)

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "customer_blocked")


def test_a_customer_that_is_let_in_again_is_served(loop: Rig) -> None:
    who = warm(loop)
    change(loop, who, status="blocked")
    assert say(loop, who).status_code == 403
    change(loop, who, status="active")

    assert say(loop, who).status_code == 200


@pytest.mark.parametrize(
    ("limit", "amount"),
    [("period_tokens_max", 1), ("spend_nanousd_max", 0), ("requests_per_minute", 1), ("end_user_period_tokens_max", 1)],
)
def test_a_limit_that_is_lowered_holds_for_the_next_call(loop: Rig, limit: str, amount: int) -> None:
    loop.tier("open", conversation_tokens_max=400, price_nanousd=3)
    who = warm(loop)
    assert say(loop, who, user="ann").status_code == 200
    change(loop, who, overrides={limit: amount})

    answers = [say(loop, who, user="ann").status_code for _ in range(3)]

    assert answers.count(429) >= 2, "at most one call fits what is left or the next turn"


def test_a_cap_that_is_lowered_or_lifted_holds_for_the_next_conversation(loop: Rig) -> None:
    who = warm(loop)
    caps = []
    for cap in (50, 700, None):
        change(loop, who, overrides={"conversation_tokens_max": cap})
        caps.append(say(loop, who).headers["x-tokencap-cap"])

    assert caps == ["50", "700", "400"]


def test_another_tier_and_another_menu_hold_for_the_next_conversation(loop: Rig) -> None:
    who = warm(loop)
    loop.admin.put(f"/admin/customers/{who.id}/tier", json={"tier": "other"}).raise_for_status()
    moved = say(loop, who)
    loop.tier("other", conversation_tokens_max=60)
    republished = say(loop, who)

    assert [one.headers["x-tokencap-tier"] for one in (moved, republished)] == ["other", "other"]
    assert [one.headers["x-tokencap-cap"] for one in (moved, republished)] == ["90", "60"]


def test_a_key_that_is_revoked_opens_nothing(loop: Rig) -> None:
    who = warm(loop)
    [key] = loop.admin.get(f"/admin/customers/{who.id}/keys").json()["data"]
    loop.admin.delete(f"/admin/keys/{key['key_id']}").raise_for_status()

    assert say(loop, who).status_code == 401


def test_a_key_opens_nothing_from_the_moment_on_at_which_it_expires(loop: Rig) -> None:
    who = loop.customer("open")
    moment = datetime.now(UTC) + timedelta(seconds=5)
    created = loop.admin.post(f"/admin/customers/{who.id}/keys", json={"expires": moment.isoformat()}).json()
    expiring = Sold(who.id, created["key"])
    before = say(loop, expiring).status_code
    was_in_time = datetime.now(UTC) < moment

    refused = until(lambda: say(loop, expiring).status_code == 401)

    assert refused
    assert before == 200 or not was_in_time
    assert datetime.now(UTC) >= moment
    assert say(loop, who).status_code == 200


def test_a_customer_that_is_deleted_makes_no_call_more(loop: Rig) -> None:
    who = warm(loop)
    loop.admin.delete(f"/admin/customers/{who.id}").raise_for_status()

    assert say(loop, who).status_code == 401
