"""``tokencap serve`` beside a Redis whose clock is set, and set back: this period is sold once, and the house opens again."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.loop.rig import Sold
from tests.servers import set_clock_valkey_in
from tests.waiting import until

DAY_S = 86_400
FEE, PRICE, QUOTA, CAP = 1_000, 7, 40, 10
ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}


def call(gateway: Serving, who: Sold) -> int:
    """Return the status: no other than that of an answer, a quota that is used up, or a house that waits."""
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=ASKED, headers=who.headers, timeout=30)
    assert answer.status_code in (200, 429, 503), answer.text
    if answer.status_code == 503:
        assert answer.json()["error"]["code"] == "metering_unavailable"
    return answer.status_code


@pytest.mark.parametrize("jump_s", [-400 * DAY_S, -7_200, 7_200, 45 * DAY_S])
def test_the_clock_of_redis_is_set_and_set_back(directory: Path, jump_s: float) -> None:
    """One fee, a price for each conversation, no token above the quota, and ready again by itself or after a rebuild."""
    store = directory.parent / "redis"
    store.mkdir()
    with set_clock_valkey_in(store) as (url, clock), serving(directory, redis_url=url) as gateway:
        rig = gateway.rig(gateway.admin_token())
        fields = {"period_price_nanousd": FEE, "price_nanousd": PRICE, "period_tokens_max": QUOTA}
        rig.tier("only", conversation_tokens_max=CAP, **fields)
        who, other = rig.customer("only"), rig.customer("only")
        before = call(gateway, who)
        clock.set(jump_s)
        meanwhile = [call(gateway, one) for one in (who, other) for _ in range(3)]
        clock.set(0)

        def ready() -> bool:
            return httpx.get(f"{gateway.url}/readyz").status_code == 200

        try:
            until(ready, 20)
        except TimeoutError:
            recovered = tokencap(directory, "ledger", "recover", redis_url=url)
            assert recovered.returncode == 0, recovered.stderr
            until(ready, 20)
        after = [call(gateway, one) for one in (who, other) for _ in range(6)]
        served = [before, *meanwhile, *after].count(200)
        fees = 2
        until(lambda: len(rig.usage()) == served + fees, 20)
        records = rig.usage()
        assert gateway.stop() == 0

    assert before == 200
    assert 503 not in after
    assert after[5] == after[-1] == 429
    for one in (who, other):
        its = [record for record in records if record["customer"] == one.id]
        assert sum(record["output_tokens"] for record in its) == QUOTA
        assert sum(record["charge_nanousd"] for record in its) == FEE + PRICE * (len(its) - 1)
    assert tokencap(directory, "ledger", "verify").returncode == 0
