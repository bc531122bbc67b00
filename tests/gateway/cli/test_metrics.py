"""``/metrics`` of ``tokencap serve`` with two workers and a bookkeeper, each a process of its own."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.cli.commands import Serving, serving
from tests.waiting import until

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}
CALLS = 12


def total(gateway: Serving, token: str, name: str) -> float:
    text = httpx.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {token}"}).text
    return sum(
        one.value for family in text_string_to_metric_families(text) for one in family.samples if one.name == name
    )


def test_two_workers_and_the_bookkeeper_are_one_to_a_scraper(directory: Path) -> None:
    """Each call is on a connection of its own, so both workers serve some; a new start begins at nothing."""
    with serving(directory, "--workers", "2") as gateway:
        token = gateway.admin_token()
        rig = gateway.rig(token)
        rig.tier("only", conversation_tokens_max=5, price_nanousd=7)
        customer = rig.customer("only")
        url = f"{gateway.url}/v1/chat/completions"
        for _ in range(CALLS):
            assert httpx.post(url, json=ASKED, headers=customer.headers, timeout=30).is_success
            assert httpx.post(url, json=ASKED, timeout=30).status_code == 401
        assert httpx.get(f"{gateway.url}/livez", headers={"a": "b" * 40_000}).status_code == 431
        until(lambda: total(gateway, token, "tokencap_requests_total") == CALLS)
        until(lambda: total(gateway, token, "tokencap_refusals_total") == CALLS + 1)

        records = rig.usage()
        sheets = sorted(path.stem for path in (directory / "metrics").glob("*.json"))
        assert (
            total(gateway, token, "tokencap_charged_nanousd_total")
            == 7 * CALLS
            == sum(record["charge_nanousd"] for record in records)
        )
        assert total(gateway, token, "tokencap_cap_hits_total") == sum(record["finish"] == "cap" for record in records)
        assert [name[:2] for name in sheets] == ["bo", "w_", "w_"]
        assert gateway.stop() == 0

    with serving(directory) as gateway:
        assert total(gateway, token, "tokencap_requests_total") == 0
        assert httpx.get(f"{gateway.url}/readyz").status_code == 200
