"""The simulated model speaks at its pace, to many at once, and counts what it said."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.gateway.simulator.hosting import question, simulator
from tests.waiting import until

TICK_S = 0.005
"""How early a timer of the event loop may be: its clock is read once a turn and counts in milliseconds."""


def pace(tokens_per_s: float, tokens: int, first_token_s: float = 0.0) -> Law:
    return Law(tokens_per_s=tokens_per_s, first_token_s=first_token_s, lengths=Table((tokens,), (1.0,)))


def is_token(line: str) -> bool:
    return '"content":"' in line and '"content":""' not in line


def test_tokens_are_never_early_and_lateness_does_not_add_up() -> None:
    """Token n comes at first_token_s + n/tokens_per_s, the last as punctually as the first."""
    with simulator(pace(200, 200, first_token_s=0.1)) as client:
        start = time.monotonic()
        with client.stream("POST", "/v1/chat/completions", json=question(stream=True)) as response:
            arrived = [time.monotonic() - start for line in response.iter_lines() if is_token(line)]

    late = [when - (0.1 + n / 200) for n, when in enumerate(arrived, start=1)]
    assert len(late) == 200
    assert min(late) >= -TICK_S
    assert late[-1] < 0.5


def test_a_whole_answer_comes_when_its_last_token_is_due() -> None:
    """Without streaming the caller waits for as long as the model speaks."""
    with simulator(pace(100, 30, first_token_s=0.1)) as client:
        start = time.monotonic()
        client.post("/v1/chat/completions", json=question()).raise_for_status()

        assert time.monotonic() - start >= 0.4 - TICK_S


async def stream_raw(url: httpx.URL, body: dict[str, Any]) -> tuple[int, float]:
    """Read one stream over a bare socket; return its tokens and the seconds it took."""
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(url.host, url.port)
    start = time.monotonic()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: model\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(content), content)
    )
    tokens = 0
    async for line in reader:
        tokens += is_token(line.decode())
    writer.close()
    return tokens, time.monotonic() - start


async def test_four_hundred_streams_at_once_keep_their_pace() -> None:
    """400 answers of 40 tokens at 20 tokens/s end after two seconds, not later, and every token is counted."""
    with simulator(pace(20, 40)) as client:
        body = question(stream=True)
        streams = await asyncio.gather(*(stream_raw(client.base_url, body) for _ in range(400)))
        count = client.get("/simulator/count").json()

    assert [tokens for tokens, _ in streams] == [40] * 400
    assert min(seconds for _, seconds in streams) >= 2.0 - TICK_S
    assert max(seconds for _, seconds in streams) < 4.0
    assert (count["completion_tokens"], count["live"], count["finished"]) == (16_000, 0, 400)


def test_the_count_is_the_sum_of_what_the_callers_were_told() -> None:
    """Totals and single calls agree with the usage of every answer, whole or streamed, with one choice or several."""
    usage = {"include_usage": True}
    with simulator() as client:
        answers = [
            client.post("/v1/chat/completions", json=question(n=1 + number % 3), headers={"x-request-id": f"r{number}"})
            for number in range(20)
        ]
        streams = [
            client.post("/v1/chat/completions", json=question(n=1 + number % 3, stream=True, stream_options=usage))
            for number in range(20)
        ]
        count = client.get("/simulator/count").json()
        by_request = client.get("/simulator/count", params={"call": "r5"}).json()
        by_id = client.get("/simulator/count", params={"call": answers[5].json()["id"]}).json()
        unknown = client.get("/simulator/count", params={"call": "r20"})

    usages = [answer.json()["usage"] for answer in answers]
    usages += [json.loads(stream.text.split("\n\n")[-3].removeprefix("data: "))["usage"] for stream in streams]
    assert count["calls"] == count["finished"] == 40
    assert count["calls_by_status"] == {"200": 40}
    for kind in ("prompt_tokens", "completion_tokens"):
        assert count[kind] == sum(usage[kind] for usage in usages)
    assert by_request == by_id
    assert by_id["completion_tokens"] == answers[5].json()["usage"]["completion_tokens"]
    assert (by_id["request_id"], by_id["choices"], by_id["state"]) == ("r5", 3, "finished")
    assert unknown.status_code == 404


def test_a_stream_closed_by_its_reader_counts_what_was_sent_until_then() -> None:
    """The model stops with the caller: the call has at least the tokens that were read, and no more come."""
    with simulator(pace(100, 10_000)) as client:
        with client.stream("POST", "/v1/chat/completions", json=question(stream=True)) as response:
            name, read = "", 0
            for line in response.iter_lines():
                if line.startswith("data: "):
                    name = json.loads(line.removeprefix("data: "))["id"]
                    read += 1
                if read == 21:  # the chunk with the role, and twenty tokens
                    break
        count = until(lambda: _settled(client))
        call = client.get("/simulator/count", params={"call": name}).json()

    assert call["state"] == "closed"
    assert 20 <= call["completion_tokens"] < 200
    assert (count["closed"], count["finished"]) == (1, 0)
    assert count["completion_tokens"] == call["completion_tokens"]


def test_an_answer_that_nobody_waited_for_was_not_sent() -> None:
    """A whole answer abandoned half-way has no sent tokens; what was generated by then is counted apart."""
    with simulator(pace(100, 10_000)) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=question(), timeout=0.3)
        count = until(lambda: _settled(client))

    assert (count["closed"], count["completion_tokens"]) == (1, 0)
    assert 25 <= count["unsent_tokens"] < 300


def _settled(client: httpx.Client) -> dict[str, Any] | None:
    """Return the count once calls came and none is live any more."""
    count: dict[str, Any] = client.get("/simulator/count").json()
    return count if count["calls"] and not count["live"] else None
