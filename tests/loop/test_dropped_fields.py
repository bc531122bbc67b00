"""A caller hears which of its fields did not reach the model, streamed, whole and repeated; the operator sees a count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loop.rig import Rig, Sold, rig

ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def asked(valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Sold]]:
    """A gateway before a vLLM, and who calls it."""
    folder: Path = tmp_path_factory.mktemp("dropped")
    with rig(valkey_server, f"sqlite:///{folder}/ledger.sqlite", folder, upstream_profile="vllm") as running:
        running.tier("basic", conversation_tokens_max=1000, price_nanousd=1000)
        yield running, running.customer("basic")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_the_answer_names_what_was_dropped(asked: tuple[Rig, Sold], path: str, stream: bool) -> None:
    loop, who = asked
    body: dict[str, Any] = {**ASKED, "stream": stream, "made_up": 1, "odd\r\nname": 2, "chat_template_kwargs": {}}
    named = {**who.headers, "idempotency-key": f"{path} {stream}"}

    first = httpx.post(loop.url + path, json=body, headers=named)
    again = httpx.post(loop.url + path, json=body, headers=named)

    assert first.status_code == 200, first.text
    assert first.headers["x-tokencap-dropped"] == again.headers["x-tokencap-dropped"] == "made_up, odd??name"
    assert again.headers["idempotency-replayed"] == "true"


def test_what_was_dropped_is_counted_by_names_that_are_known(asked: tuple[Rig, Sold]) -> None:
    """A caller's own names are one series, so no caller makes series."""
    loop, who = asked
    httpx.post(f"{loop.url}/v1/chat/completions", json={**ASKED, "priority": 9, "zzz": 1}, headers=who.headers)

    lines = loop.admin.get("/metrics").text.splitlines()

    counted = {line.partition("{")[2].partition("}")[0] for line in lines if "dropped_fields_total{" in line}
    assert counted >= {'field="priority"', 'field="other"'}
    assert not any("zzz" in line or "made_up" in line for line in lines)
