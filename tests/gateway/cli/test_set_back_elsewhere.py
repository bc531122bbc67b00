"""A bucket set back to an older moment, noticed by a gateway on another machine, which has no file of watermarks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import connect, text
from tests.gateway.cli.commands import Serving, serving
from tests.loop.rig import Sold
from tests.waiting import until

ASKED: dict[str, Any] = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}
QUOTA = 60


def call(gateway: Serving, who: Sold) -> int:
    """Return the status of a call that is admitted or refused: a call that meets a rebuild is sent again."""

    def answered() -> int:
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=ASKED, headers=who.headers, timeout=30)
        return 0 if answer.status_code == 503 else answer.status_code

    return until(answered)


def mark(client: redis.Redis, bucket: str) -> int:
    return int(text(client.hget(redis_keys.state(bucket), "tide")) or 0)


@pytest.mark.parametrize("is_alone", [False, True])
def test_another_machine_learns_that_a_bucket_was_set_back(
    directory: Path, valkey_url: str, sqlite_url: str, is_alone: bool
) -> None:
    """Nobody calls meanwhile: its bookkeeper finds the bucket by the ledger and rebuilds it, also where the machine that
    booked the records is gone. Then it sells what the records leave, which is nothing."""
    elsewhere = directory.parent / "elsewhere"
    (elsewhere / "watermarks").mkdir(parents=True)  # a file that cannot be mapped: its workers are told no mark
    shared = {"redis_url": valkey_url, "database_url": sqlite_url, "upstream_url": "simulated", "workers": 1}
    with serving(directory, **shared) as here, serving(elsewhere, **shared) as there, connect(valkey_url) as client:
        token = here.admin_token()
        rig = there.rig(token)
        rig.tier("small", conversation_tokens_max=400, period_tokens_max=QUOTA)
        who = rig.customer("small")
        bucket = redis_keys.bucket_of(who.id)
        assert [call(there, who), call(here, who)] == [200, 200]
        rig.usage(who)
        was = {name: client.dump(name) for name in client.scan_iter(f"{{b{bucket}}}:*")}
        while call(here, who) == 200:
            pass
        records, newest = rig.usage(who), mark(client, bucket)
        if is_alone:
            assert here.stop() == 0

        with client.pipeline(transaction=True) as batch:
            for name in client.scan_iter(f"{{b{bucket}}}:*"):
                batch.delete(name)
            for name, value in was.items():
                batch.restore(name, 0, value)
            batch.execute()
        until(lambda: mark(client, bucket) >= newest, 10)

        assert call(there, who) == 429
        assert rig.usage(who) == records
        assert sum(record["billed_output_tokens"] for record in records) == QUOTA
        assert rig.account(who)["period"]["tokens_used"] == QUOTA
        assert any("once a second only" in line for line in there.errors.queue)
    shutil.rmtree(elsewhere)
