"""OpenAI's own client reads a customer's usage and costs, and both agree with the customer's records."""

from __future__ import annotations

import httpx

from tests.late import Library
from tests.loop.rig import Rig

ASKED = {
    "model": "aligned-1",
    "messages": [{"role": "user", "content": "How long is a piece of string?"}],
    "user": "ann",
}


def test_the_openai_client_reads_usage_and_costs(loop: Rig) -> None:
    loop.tier("only", conversation_tokens_max=50, price_nanousd=1_234_567)
    who, other = loop.customer("only"), loop.customer("only")
    for one in (who, who, other):
        assert httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=one.headers).is_success
    records = loop.usage(who)
    client = Library("openai").OpenAI(base_url=f"{loop.url}/v1", api_key=who.key, admin_api_key=who.key)
    start = min(record["time"] for record in records) // 1000

    usage = client.admin.organization.usage.completions(
        start_time=start, bucket_width="1h", group_by=["model", "api_key_id", "service_tier", "user_id"]
    )
    costs = client.admin.organization.usage.costs(start_time=start, group_by=["line_item"])

    results = [result for bucket in usage.data for result in bucket.results]
    amounts = [result for bucket in costs.data for result in bucket.results]
    assert sum(result.num_model_requests for result in results) == 2
    assert sum(result.output_tokens for result in results) == sum(one["billed_output_tokens"] for one in records)
    assert sum(result.input_tokens for result in results) == sum(one["input_tokens"] for one in records)
    assert {(one.model, one.api_key_id, one.service_tier, one.user_id is not None) for one in results} == {
        (records[0]["model"], records[0]["key_id"], "only", True)
    }
    assert [(one.line_item, round(one.amount.value * 10**9)) for one in amounts] == [("only", 2 * 1_234_567)]


def test_a_customer_sees_its_own_only(loop: Rig) -> None:
    loop.tier("only", conversation_tokens_max=50)
    who, other = loop.customer("only"), loop.customer("only")
    assert httpx.post(f"{loop.url}/v1/chat/completions", json=ASKED, headers=other.headers).is_success
    assert len(loop.usage(other)) == 1

    for path in ("usage/completions", "costs"):
        url = f"{loop.url}/v1/organization/{path}?start_time=0&end_time=9999999999&limit=1"
        own, anybody = httpx.get(url, headers=who.headers), httpx.get(url)
        of_the_other = httpx.get(f"{url}&project_ids={other.id}", headers=who.headers)
        wrong = httpx.get(f"{url}&form=pdf", headers=who.headers)

        assert own.is_success
        assert [bucket["results"] for bucket in own.json()["data"]] == [[]]
        assert [bucket["results"] for bucket in of_the_other.json()["data"]] == [[]]
        assert (anybody.status_code, wrong.status_code) == (401, 422)
