"""Notices of thresholds: what they say, and that their signature is the specification's."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from gateway.errors import StartupError
from gateway.holds.terms import Publication
from gateway.settings import read_settings
from gateway.webhooks.notices import LockedOut, MenuPublished, Threshold, read_notice, signed

NOTICE = Threshold(
    time=1_767_225_600_123,
    limit="period_tokens",
    percent=80,
    max=1_000,
    used=803,
    customer="cus_1",
    period_start=1_767_225_600_000,
    period_end=1_769_904_000_000,
)


def test_a_notice_says_who_came_how_near_to_what() -> None:
    """The fields of the contract, times in RFC 3339."""
    assert json.loads(NOTICE.body()) == {
        "id": NOTICE.id,
        "type": "quota.threshold",
        "time": "2026-01-01T00:00:00.123Z",
        "customer": "cus_1",
        "limit": "period_tokens",
        "percent": 80,
        "max": 1_000,
        "used": 803,
        "period": {"start": "2026-01-01T00:00:00.000Z", "end": "2026-02-01T00:00:00.000Z"},
    }


def test_a_notice_of_a_menu_says_from_when_on_and_who_moves() -> None:
    """Each publication has an id of its own, also of a version that was in force before."""
    publication = Publication(3, "m_2", 1_767_225_600_123, "next_period", {"small": "large"})
    notice = MenuPublished(publication)

    assert json.loads(notice.body()) == {
        "id": notice.id,
        "type": "menu.published",
        "time": "2026-01-01T00:00:00.123Z",
        "version": "m_2",
        "effective": "next_period",
        "moves": {"small": "large"},
    }
    assert MenuPublished(replace(publication, seq=4)).id != notice.id


def test_the_signature_is_the_one_of_the_specifications_own_example() -> None:
    """Secret, id, time and payload that the reference implementations are tested with."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', key, 1_614_265_330)

    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", [None, "", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_" + 40 * "*"])
def test_a_webhook_without_a_good_secret_is_refused_at_the_start(secret: str | None) -> None:
    """Nothing unsigned, or signed with what anyone could guess, is ever sent."""
    with pytest.raises(StartupError, match="TOKENCAP_WEBHOOK_SECRET") as refused:
        read_settings(webhook_url="https://example.org/hook", webhook_secret=secret)

    assert secret in (None, "", "secret", "whsec_") or secret not in str(refused.value)


def test_a_customer_that_is_locked_out_is_told_of_with_what_it_asked() -> None:
    """Another amount of the limit, another period or another customer is another notice."""
    facts = {
        **{"time": 1_767_225_600_123, "limit": "spend", "max": 1_000, "used": 803, "held": 0, "asked": 200},
        **{"customer": "cus_1", "period_start": 1_767_225_600_000, "period_end": 1_769_904_000_000},
    }
    notice = read_notice("1-0", {"locked_out": "spend_nanousd_max", "facts": json.dumps(facts)})

    assert json.loads(notice.body()) == {
        **{"id": notice.id, "type": "quota.locked_out", "time": "2026-01-01T00:00:00.123Z", "customer": "cus_1"},
        **{"limit": "spend", "max": 1_000, "used": 803, "held": 0, "asked": 200},
        "period": {"start": "2026-01-01T00:00:00.000Z", "end": "2026-02-01T00:00:00.000Z"},
    }
    assert isinstance(notice, LockedOut)
    others = [replace(notice, max=2_000), replace(notice, period_start=1), replace(notice, customer="cus_2"), NOTICE]
    assert len({notice.id, *(other.id for other in others)}) == 5
    assert replace(notice, used=900, asked=1).id == notice.id
