"""Events about customers' limits and menus reach the operator's webhook through the whole loop, once each."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from tests.gateway.webhooks.test_delivery import Receiver
from tests.loop.rig import rig
from tests.loop.selling.test_menus import menu_named, post, put_in_force
from tests.serving import served
from tests.waiting import until

ASKED: dict[str, Any] = {
    "model": "aligned-1",
    "messages": [{"role": "user", "content": "How long is a piece of string?"}],
}
KEY = b"twenty-four bytes or more"
SECRET = SecretStr("whsec_" + base64.b64encode(KEY).decode())


def events_of(receiver: Receiver, kind: str) -> dict[str, Any]:
    """Return the events of one type that the webhook was sent, by their ids."""
    return {event["id"]: event for event in receiver.events if event["type"] == kind}


def test_a_customer_that_uses_up_its_limits_is_told_of(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """Tokens and spend notify at 80 % and at 100 %; the webhook fails at first, and calls do not wait for it."""
    receiver = Receiver(statuses=[503, 503])
    with (
        served(receiver) as hook,
        rig(valkey_url, sqlite_url, tmp_path, webhook_url=f"{hook}/quota", webhook_secret=SECRET) as loop,
    ):
        loop.tier("only", conversation_tokens_max=5, price_nanousd=7, period_tokens_max=25, spend_nanousd_max=35)
        customer = loop.customer("only")
        for _ in range(5):
            answered = httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=customer.headers)
            assert answered.json()["usage"]["completion_tokens"] == 5
        until(lambda: len(events_of(receiver, "quota.threshold")) == 4)

        taken = events_of(receiver, "quota.threshold")
        assert sorted((event["limit"], event["percent"], event["used"]) for event in taken.values()) == [
            ("period_tokens", 80, 20),
            ("period_tokens", 100, 25),
            ("spend", 80, 28),
            ("spend", 100, 35),
        ]
        period = loop.account(customer)["period"]
        for event in taken.values():
            assert event["customer"] == customer.id
            assert event["period"] == {"start": period["start"], "end": period["end"]}
        for headers, body in receiver.posts:
            content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            signature = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{signature}"


def test_a_menu_that_comes_with_the_next_period_is_told_of_before_it_does(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """The webhook receives each publication and each rollback, and an account shows the coming menu."""
    receiver = Receiver()
    with (
        served(receiver) as hook,
        rig(valkey_url, sqlite_url, tmp_path, webhook_url=f"{hook}/menus", webhook_secret=SECRET) as loop,
    ):
        first, second = menu_named("quick", "long"), menu_named("quick", "long", value=10_000_000)
        for menu in (first, second):
            post(loop, menu).raise_for_status()
        put_in_force(loop, first["version"], effective="now").raise_for_status()
        customer = loop.customer("long")
        put_in_force(loop, second["version"], effective="next_period").raise_for_status()
        coming = loop.account(customer)["next"]
        put_in_force(loop, second["version"], "rollback", effective="now").raise_for_status()
        until(lambda: len(events_of(receiver, "menu.published")) == 3)

        events = list(events_of(receiver, "menu.published").values())

    assert coming["menu_version"] == second["version"]
    assert [(event["version"], event["effective"]) for event in events] == [
        (first["version"], "now"),
        (second["version"], "next_period"),
        (first["version"], "now"),
    ]


def test_a_customer_that_is_locked_out_is_told_of_once_until_its_limit_changes(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """The customer is refused below the 80 % threshold: what is left is less than a whole conversation."""
    receiver = Receiver()
    with (
        served(receiver) as hook,
        rig(valkey_url, sqlite_url, tmp_path, webhook_url=f"{hook}/quota", webhook_secret=SECRET) as loop,
    ):
        loop.tier("only", conversation_tokens_max=5, price_nanousd=7, period_tokens_max=9)
        customer = loop.customer("only")

        def call() -> int:
            return httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=customer.headers).status_code

        first = [call(), call(), call()]
        until(lambda: len(events_of(receiver, "quota.locked_out")) == 1)
        loop.admin.patch(f"/admin/customers/{customer.id}", json={"overrides": {"period_tokens_max": 14}})
        second = [call(), call(), call()]
        until(lambda: len(events_of(receiver, "quota.locked_out")) == 2)

        events = list(events_of(receiver, "quota.locked_out").values())
        period = loop.account(customer)["period"]

    assert (first, second) == ([200, 429, 429], [200, 429, 429])
    assert [{name: event[name] for name in ("limit", "max", "used", "held", "asked")} for event in events] == [
        {"limit": "period_tokens", "max": 9, "used": 5, "held": 0, "asked": 5},
        {"limit": "period_tokens", "max": 14, "used": 10, "held": 0, "asked": 5},
    ]
    assert {event["customer"] for event in events} == {customer.id}
    assert all(event["period"] == {"start": period["start"], "end": period["end"]} for event in events)


def test_the_operator_says_at_which_shares_it_is_told(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    """The shares of a customer replace the default; a customer with an empty list causes no event."""
    receiver = Receiver()
    hook_settings = {"webhook_secret": SECRET, "notice_percents": (50, 90)}
    with (
        served(receiver) as hook,
        rig(valkey_url, sqlite_url, tmp_path, webhook_url=f"{hook}/quota", **hook_settings) as loop,
    ):
        loop.tier("only", conversation_tokens_max=5, period_tokens_max=20)
        usual, own, never = (loop.customer("only", notice_percents=own) for own in (None, [25, 75], []))
        for _ in range(4):
            for who in (usual, own, never):
                url = f"{loop.url}/v1/chat/completions"
                assert httpx.post(url, json=ASKED, headers=who.headers).is_success
        until(lambda: len(events_of(receiver, "quota.threshold")) == 4)

        found = {(event["customer"], event["percent"]) for event in events_of(receiver, "quota.threshold").values()}

    assert found == {(usual.id, 50), (usual.id, 90), (own.id, 25), (own.id, 75)}


def test_thresholds_are_told_again_after_a_raise(valkey_url: str, sqlite_url: str, tmp_path: Path) -> None:
    receiver = Receiver()
    with (
        served(receiver) as hook,
        rig(valkey_url, sqlite_url, tmp_path, webhook_url=f"{hook}/quota", webhook_secret=SECRET) as loop,
    ):
        loop.tier("only", conversation_tokens_max=5, period_tokens_max=10)
        customer = loop.customer("only")
        for most in (10, 20):
            loop.admin.patch(f"/admin/customers/{customer.id}", json={"overrides": {"period_tokens_max": most}})
            for _ in range(2):
                url = f"{loop.url}/v1/chat/completions"
                assert httpx.post(url, json=ASKED, headers=customer.headers).is_success
        until(lambda: len(events_of(receiver, "quota.threshold")) == 4)

        found = [
            (event["max"], event["percent"], event["used"]) for event in events_of(receiver, "quota.threshold").values()
        ]

    assert sorted(found) == [(10, 80, 10), (10, 100, 10), (20, 80, 20), (20, 100, 20)]
