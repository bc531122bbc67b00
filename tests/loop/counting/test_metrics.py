"""``/metrics`` of two gateways: their counts and the bookkeeper's agree with the ledger and with the answers."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from gateway.app import build
from tests.loop.rig import Rig, rig
from tests.serving import served
from tests.waiting import until

ASKED: dict[str, Any] = {
    "model": "aligned-1",
    "messages": [{"role": "user", "content": "How long is a piece of string?"}],
}
TOKEN = "scraper-" + secrets.token_hex(16)


@pytest.fixture
def two(valkey_url: str, sqlite_url: str, tmp_path: Path) -> Iterator[Rig]:
    with rig(valkey_url, sqlite_url, tmp_path, gateways=2, metrics_token=SecretStr(TOKEN)) as running:
        yield running


def scraped(url: str) -> dict[tuple[str, ...], float]:
    answer = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def total(counts: dict[tuple[str, ...], float], *beginning: str) -> float:
    return sum(count for place, count in counts.items() if place[: len(beginning)] == beginning)


def test_metrics_over_two_gateways_are_the_ledgers_figures(two: Rig) -> None:
    """Calls, tokens by the source of their count, charges, cap hits and refusals agree on either gateway."""
    two.tier("small", conversation_tokens_max=5, price_nanousd=7)
    two.tier("large", conversation_tokens_max=500, price_nanousd=20)
    refused: Counter[str] = Counter()
    for tier in ("small", "large"):
        customer = two.customer(tier)
        for turn in range(20):
            body = ASKED | ({"model": "another"} if turn % 5 == 0 else {"stream": turn % 2 == 0})
            key = {} if turn % 7 == 0 else customer.headers
            answer = httpx.post(f"{two.urls[turn % 2]}/v1/chat/completions", json=body, headers=key)
            if not answer.is_success:
                refused[answer.json()["error"]["code"]] += 1
    records = two.usage()
    until(lambda: total(scraped(two.url), "tokencap_requests_total") == len(records))
    until(lambda: all(total(scraped(url), "tokencap_refusals_total") == refused.total() for url in two.urls))

    for url in two.urls:
        counts = scraped(url)
        finishes = Counter((record["tier"], record["finish"]) for record in records)
        assert {
            (tier, finish): counts["tokencap_requests_total", tier, finish] for tier, finish in finishes
        } == finishes
        assert counts["tokencap_cap_hits_total", "small"] == finishes["small", "cap"] > 0
        for tier in ("small", "large"):
            of_tier = [record for record in records if record["tier"] == tier]
            billed = sum(record["billed_output_tokens"] for record in of_tier)
            assert total(counts, "tokencap_tokens_total", tier, "output") == billed
            assert total(counts, "tokencap_tokens_total", tier, "input") == sum(one["input_tokens"] for one in of_tier)
        assert counts["tokencap_charged_nanousd_total",] == sum(record["charge_nanousd"] for record in records)
        assert {code: counts["tokencap_refusals_total", code] for code in refused} == refused
        assert counts["tokencap_time_to_first_token_seconds_count",] == sum(
            record["ttft_ms"] is not None for record in records
        )
    assert set(refused) == {"invalid_api_key", "model_not_found"}


def test_gauges_come_back_to_rest(two: Rig) -> None:
    """With no call in flight, the gauges for holds, waiting records, dead letters and breaches are zero."""
    two.tier("small", conversation_tokens_max=5)
    customer = two.customer("small")
    httpx.post(f"{two.url}/v1/chat/completions", json=ASKED, headers=customer.headers)
    began = scraped(two.url)["tokencap_bookkeeper_turn_timestamp_seconds",]
    gauges = ("holds", "held_tokens", "ledger_lag_records", "ledger_aside_records", "conservation_breaches")

    def are_at_rest() -> bool:
        counts = scraped(two.url)
        turned = counts["tokencap_bookkeeper_turn_timestamp_seconds",]
        return turned > began and not any(counts[f"tokencap_{name}",] for name in gauges)

    until(are_at_rest)


def test_a_call_the_upstream_does_not_answer_is_counted_without_a_record(
    valkey_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    """The call was admitted and ended, and nobody pays for it."""

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body"})

    settings = {"upstream": failing, "metrics_token": SecretStr(TOKEN)}
    with rig(valkey_url, sqlite_url, tmp_path, **settings) as running:  # type: ignore[arg-type]
        running.tier("small", conversation_tokens_max=5)
        customer = running.customer("small")
        answer = httpx.post(f"{running.url}/v1/chat/completions", json=ASKED, headers=customer.headers)

        assert answer.status_code == 502
        until(lambda: scraped(running.url).get(("tokencap_requests_total", "small", "unanswered")) == 1)
        assert running.usage() == []


def test_metrics_want_a_token_and_listen_where_the_admin_side_does(two: Rig) -> None:
    """The admin's or the scraper's token opens them, where the admin side listens; the scraper's opens nothing else."""
    unknown = httpx.get(f"{two.url}/metrics", headers={"authorization": "Bearer wrong"})
    elsewhere = httpx.get(f"{two.url}/admin/customers", headers={"authorization": f"Bearer {TOKEN}"})
    apart = build(two.settings.model_copy(update={"admin_port": 1}), "w_apart")
    with served(apart.public) as public, served(apart.admin) as admin:
        assert httpx.get(f"{public}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 404
        assert total(scraped(admin), "tokencap_conservation_breaches") == 0

    assert [unknown.status_code, httpx.get(f"{two.url}/metrics").status_code] == [401, 401]
    assert elsewhere.status_code == 401
    assert two.admin.get("/metrics").status_code == 200
