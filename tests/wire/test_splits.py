"""Wherever an answer is cut in two, and whether it is whole or streamed, its caller gets the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.serving.caller.json_body import Body
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.registry import dialects
from gateway.serving.json_codec import dumps, loads
from gateway.serving.upstream.profiles import PROFILES
from tests.wire.sdk_models import read_stream, read_whole, strict_json
from tests.wire.transcripts import TRANSCRIPTS, Transcript, fits

DIALECTS = {(profile.name, dialect.endpoint): dialect for profile in PROFILES.values() for dialect in dialects(profile)}
GRANT = 10_000
ANSWERS = [one for one in TRANSCRIPTS if one.caller.error is None]
STREAMED = [one for one in ANSWERS if one.streamed and one.streamed.is_stream]
WHOLE = [one for one in ANSWERS if one.whole and not one.whole.is_stream]


def reading(transcript: Transcript, *, stream: bool) -> Reading:
    dialect = DIALECTS[transcript.profile, transcript.endpoint]
    body: Body = {"model": "aligned-1", **transcript.request, "stream": stream}
    if stream and transcript.endpoint.endswith("completions"):
        body["stream_options"] = {"include_usage": True}
    return dialect.reading(dialect.read(body, len(json.dumps(body))), grant=GRANT)


def read_answer(transcript: Transcript, pieces: list[bytes], *, stream: bool) -> tuple[bytes, Any]:
    """Return the bytes that a caller gets of a stream in these pieces, and what the meter observed."""
    one = reading(transcript, stream=stream)
    shown = [one.feed(piece) for piece in pieces] + [one.close()]
    return ended(one, shown, stream=stream), one.observed


def ended(one: Reading, shown: list[bytes], *, stream: bool) -> bytes:
    if stream:
        return b"".join([*shown, one.ending(5, None, None)])
    return dumps(one.whole(5))


def places(body: bytes) -> list[int]:
    """Return the places where a cut may matter: beside line ends, within characters, and in escapes."""
    telling = [place for place, byte in enumerate(body) if byte in b"\r\n\\" or byte > 127]
    beside = {place + off for place in telling for off in (0, 1, 2)} | {1, len(body) // 2}
    return sorted(place for place in beside if 0 < place < len(body))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("transcript", STREAMED, ids=lambda transcript: transcript.name)
def test_a_cut_changes_nothing(transcript: Transcript, stream: bool) -> None:
    assert transcript.streamed is not None
    body = transcript.streamed.body
    uncut = read_answer(transcript, [body], stream=stream)

    assert read_answer(transcript, [body[place : place + 1] for place in range(len(body))], stream=stream) == uncut
    for place in places(body):
        assert read_answer(transcript, [body[:place], body[place:]], stream=stream) == uncut, place


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("transcript", WHOLE, ids=lambda transcript: transcript.name)
def test_an_answer_that_comes_whole_says_the_same(transcript: Transcript, stream: bool) -> None:
    assert transcript.whole is not None
    one = reading(transcript, stream=stream)
    raw = ended(one, [one.feed_whole(loads(transcript.whole.body.removesuffix(b"data: [DONE]\n\n")))], stream=stream)
    wanted = transcript.caller if stream else transcript.whole_caller
    answer = read_stream(transcript.endpoint, raw)[0] if stream else read_whole(transcript.endpoint, strict_json(raw))

    name = next(name for name in ("choices", "output", "content") if name in answer)
    assert wanted.answer is None or fits(answer[name], wanted.answer[name])
