"""The bound on a body's input: attached and referenced media count by their kind, text counts by its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.serving.dialects.registry import dialects
from gateway.serving.upstream.profiles import CHAT, MESSAGES, PROFILES, RESPONSES, MediaBounds

BOUNDS = MediaBounds()
IMAGE, FILE, AUDIO_KB = BOUNDS.image_tokens_max, BOUNDS.file_tokens_max, BOUNDS.audio_tokens_per_kb
LARGE, SMALL = "A" * 400_000, "A" * 400
URL, DATA = "https://example.com/cat.png", f"data:image/png;base64,{LARGE}"
AUDIO = -(-(400_000 * 3 // 4) * AUDIO_KB // 1000)
ROUTES = {dialect.endpoint: dialect for dialect in dialects(PROFILES["any"])}


def body(path: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": list(blocks)}]
    more = {"max_tokens": 5} if path == MESSAGES else {}
    return {"model": "m", "input" if path == RESPONSES else "messages": messages, **more}


CASES: list[tuple[str, dict[str, Any], int]] = [
    (CHAT, {"type": "image_url", "image_url": {"url": DATA, "detail": "high"}}, IMAGE),
    (CHAT, {"type": "image_url", "image_url": {"url": URL}}, IMAGE),
    (CHAT, {"type": "image_url", "image_url": URL}, IMAGE),
    (CHAT, {"type": "input_audio", "input_audio": {"data": LARGE, "format": "mp3"}}, AUDIO),
    (CHAT, {"type": "audio_url", "audio_url": {"url": URL}}, FILE),
    (CHAT, {"type": "video_url", "video_url": {"url": URL}}, FILE),
    (CHAT, {"type": "file", "file": {"filename": "a.pdf", "file_data": LARGE}}, FILE),
    (CHAT, {"type": "file", "file": {"filename": "a.pdf", "file_data": SMALL}}, 300),
    (CHAT, {"type": "file", "file": {"file_id": "file-1"}}, FILE),
    (RESPONSES, {"type": "input_image", "image_url": DATA}, IMAGE),
    (RESPONSES, {"type": "input_image", "file_id": "file-1"}, IMAGE),
    (RESPONSES, {"type": "input_file", "file_url": "https://example.com/a.pdf"}, FILE),
    (RESPONSES, {"type": "input_file", "filename": "a", "file_data": f"data:application/pdf;base64,{LARGE}"}, FILE),
    (MESSAGES, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": LARGE}}, IMAGE),
    (MESSAGES, {"type": "image", "source": {"type": "url", "url": URL}}, IMAGE),
    (MESSAGES, {"type": "document", "source": {"type": "file", "file_id": "file_1"}}, FILE),
    (MESSAGES, {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": SMALL}}, 300),
    (
        MESSAGES,
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {"data": LARGE}}]},
        IMAGE,
    ),
]


@pytest.mark.parametrize(("path", "block", "tokens"), CASES)
def test_a_medium_counts_by_its_kind_and_size(path: str, block: dict[str, Any], tokens: int) -> None:
    request = body(path, {"type": "text", "text": "What is this?"}, block)
    size = len(json.dumps(request))
    carried = next((len(found) for found in (DATA, LARGE, SMALL) if found in json.dumps(request)), 0)

    wanted = ROUTES[path].read(request, size)

    most = size - carried + tokens
    assert most - 30 <= wanted.input_bound <= most + 30  # the prefix of a file's data counts with the data
    assert wanted.input_estimate == -(-wanted.input_bound // 4)


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_text_counts_by_its_bytes(path: str) -> None:
    block = {"type": "text", "text": f"data:image/png;base64,{LARGE}"}
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": LARGE}}
    request = body(path, block, *([document] if path == MESSAGES else []))
    size = len(json.dumps(request))

    assert ROUTES[path].read(request, size).input_bound == size


@pytest.mark.parametrize("odd", [None, 7, [], {"type": 5}, {"type": "image_url"}, {"type": "file", "file": [1]}])
def test_what_is_no_block_breaks_nothing(odd: Any) -> None:
    for path in (CHAT, RESPONSES, MESSAGES):
        request = body(path, odd)
        try:
            assert ROUTES[path].read(request, 100).input_bound >= 100
        except BadRequest:
            pass


def test_a_kept_prompt_counts_by_a_stated_maximum() -> None:
    request = {**body(RESPONSES), "input": "Hi", "prompt": {"id": "pmpt_1"}}

    assert ROUTES[RESPONSES].read(request, 100).input_bound == 100 + BOUNDS.kept_tokens_max
