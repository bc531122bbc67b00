"""Answers seen from engines and vendors reach streaming and other callers alike, counted as the upstream reports."""

from __future__ import annotations

import json

import pytest

from tests.wire.conftest import Played
from tests.wire.sdk_models import read_stream, read_whole, strict_json
from tests.wire.transcripts import TRANSCRIPTS, Transcript, fits

each = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda transcript: transcript.name)


@each
def test_its_caller_gets_what_the_transcript_says(transcript: Transcript, played: dict[str, list[Played]]) -> None:
    for call in played[transcript.name]:
        wanted = transcript.caller if call.stream else transcript.whole_caller
        if call.stream and call.headers["content-type"].startswith("text/event-stream"):
            assert call.status == 200
            answer, error = read_stream(transcript.endpoint, call.body)
        else:
            assert call.status == wanted.status, call.body
            data = strict_json(call.body)
            error = data.get("error") if call.status != 200 else None
            answer = read_whole(transcript.endpoint, data) if error is None else None
        if wanted.error is not None:
            assert fits(error, wanted.error), error
        else:
            assert error is None
        if wanted.answer is not None and (call.stream or error is None):
            assert fits(answer, wanted.answer), json.dumps(answer, indent=1)


@each
def test_it_is_recorded_as_the_transcript_says(transcript: Transcript, played: dict[str, list[Played]]) -> None:
    for call in played[transcript.name]:
        wanted = transcript.record if call.stream else transcript.whole_record
        if wanted is None:
            assert call.record is None
        else:
            assert call.record is not None
            assert {name: call.record[name] for name in wanted} == wanted
