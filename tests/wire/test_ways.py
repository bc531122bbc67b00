"""Every transcript has the same result in both ways of asking the upstream, with a streaming caller or another."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from gateway.serving.upstream.profiles import PROFILES
from tests.wire.alone import Alone, CallResult, UpstreamAnswer
from tests.wire.promises import read_answer
from tests.wire.transcripts import TRANSCRIPTS, Transcript

RECORDED = ("finish", "output_tokens", "usage_source", "cached_tokens", "reasoning_tokens")
WAYS = [(always, stream) for always in (True, False) for stream in (True, False)]


@cache
def house(profile: str, always: bool) -> Alone:
    return Alone(PROFILES[profile], always_streams=always)


def played(transcript: Transcript, *, always: bool, stream: bool) -> CallResult:
    def answer(body: bytes) -> UpstreamAnswer:
        sent = transcript.sent(stream=b'"stream":true' in body)
        return UpstreamAnswer((sent.body,), sent.headers, sent.status, sent.is_whole)

    alone = house(transcript.profile, always)
    return asyncio.run(alone.call(transcript.endpoint, transcript.request, answer, stream=stream))


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)
def test_every_way_comes_to_the_same(transcript: Transcript) -> None:
    calls = [played(transcript, always=always, stream=stream) for always, stream in WAYS]
    answers = [read_answer(transcript.endpoint, call) for call in calls]

    assert [one.error for one in answers] == [answers[0].error] * len(WAYS)
    assert [one.content for one in answers] == [answers[0].content] * len(WAYS)
    for name in RECORDED:
        assert len({getattr(call.outcome, name) for call in calls}) == 1, name
    billed = {call.outcome.billed_output_tokens for call in calls}
    if answers[0].error is None:
        assert len(billed) == 1
    else:  # a caller who does not stream gets nothing of a broken answer
        assert billed <= {0, calls[0].outcome.output_tokens}
