"""After a rebuild a conversation continues under the cap that it began with, whatever has changed since."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import create_engine, update

from gateway.holds.store.clients import connect
from gateway.ledger.tables import usage_records
from tests.loop.rig import Rig, Sold
from tests.waiting import until

CAP = 400


def say(loop: Rig, who: Sold, conversation: str = "talk", **limits: int) -> httpx.Response:
    body = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], **limits}
    headers = {**who.headers, "x-conversation-id": conversation}
    return httpx.post(f"{loop.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def said_after_a_rebuild(loop: Rig, who: Sold, conversation: str = "talk") -> httpx.Response:
    """Wipe the hot state, and return the answer to a call without a limit once the state is rebuilt."""
    with connect(loop.settings.redis_url) as client:
        client.flushall()

    def served() -> httpx.Response | None:
        answer = say(loop, who, conversation)
        assert answer.status_code in (200, 503), answer.text
        return answer if answer.status_code == 200 else None

    return until(served)


@pytest.mark.parametrize(
    ("began_with", "now"),
    [(50, 50), (50, 5_000), (50, None), (1_000, 1_000), (1_000, 50), (1_000, None), (None, 50), (None, 1_000)],
)
def test_a_conversation_keeps_the_cap_it_began_with(loop: Rig, began_with: int | None, now: int | None) -> None:
    """That cap is the customer's own where it had one; a later change of it is for the next conversation."""
    loop.tier("open", conversation_tokens_max=CAP)
    who = loop.customer("open", overrides={"conversation_tokens_max": began_with})
    assert say(loop, who, max_tokens=30).status_code == 200
    used = until(lambda: loop.usage(who))[0]["billed_output_tokens"]
    overridden = loop.admin.patch(f"/admin/customers/{who.id}", json={"overrides": {"conversation_tokens_max": now}})
    assert overridden.status_code == 200, overridden.text

    answer = said_after_a_rebuild(loop, who)

    assert int(answer.headers["x-tokencap-cap"]) == (began_with or CAP) - used


def test_a_conversation_whose_records_say_no_cap_has_its_customers_own(loop: Rig) -> None:
    """This is the case of records older than the field."""
    loop.tier("open", conversation_tokens_max=CAP)
    who = loop.customer("open", overrides={"conversation_tokens_max": 50})
    assert say(loop, who, max_tokens=30).status_code == 200
    used = until(lambda: loop.usage(who))[0]["billed_output_tokens"]
    with create_engine(loop.settings.ledger_url).begin() as connection:
        connection.execute(update(usage_records).values(conversation_cap_tokens=None))

    answer = said_after_a_rebuild(loop, who)

    assert int(answer.headers["x-tokencap-cap"]) == 50 - used


@pytest.mark.parametrize("change", ["rebuild", "zone"])
def test_what_a_subscription_included_is_not_included_again(loop: Rig, change: str) -> None:
    loop.tier("monthly", price_nanousd=7, period_price_nanousd=100, included_conversations=2)
    who = loop.customer("monthly")
    assert say(loop, who, "one", max_tokens=5).headers["x-tokencap-charge-nanousd"] == "0"
    until(lambda: [record for record in loop.usage(who) if record["kind"] == "usage"])
    if change == "zone":
        moved = loop.admin.patch(f"/admin/customers/{who.id}", json={"timezone": "Asia/Kolkata"})
        assert moved.status_code == 200, moved.text
        second = say(loop, who, "two", max_tokens=5)
    else:
        second = said_after_a_rebuild(loop, who, "two")
    third = say(loop, who, "three", max_tokens=5)

    assert [answer.headers["x-tokencap-charge-nanousd"] for answer in (second, third)] == ["0", "7"]
    calls = until(lambda: [call for call in loop.usage(who) if call["kind"] == "usage"][2:] and loop.usage(who))
    assert sorted(call["conversation"] for call in calls if call.get("conversation_is_included")) == ["one", "two"]
