"""Embeddings of the simulated model: meaningless vectors, equal for equal texts."""

from __future__ import annotations

import base64
import struct
from random import Random
from typing import Any

from gateway.errors import BadRequest
from gateway.simulator.reply import Reply, to_json
from gateway.simulator.request import CheckedRequest, payload_for, prompt_tokens, within_context

DIMENSIONS = 8


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return the checked request. A text that is a list of tokens has as many tokens as the list."""
    payload = payload_for(body, model)
    texts = payload.get("input")
    if isinstance(texts, str) or (isinstance(texts, list) and texts and all(type(item) is int for item in texts)):
        texts = [texts]
    if not isinstance(texts, list) or not texts or not all(isinstance(item, str | list) for item in texts):
        raise BadRequest("input is a string, tokens, or a list of either.", param="input", code="invalid_type")
    encoding = payload.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise BadRequest("encoding_format is float or base64.", param="encoding_format")
    tokens = sum(len(item) if isinstance(item, list) else prompt_tokens([{"content": item}], []) for item in texts)
    request = CheckedRequest(
        model, tokens, None, 0, False, False, False, None, None, inputs=len(texts), in_base64=encoding == "base64"
    )
    return within_context(request, context_tokens)


def whole(reply: Reply, request: CheckedRequest) -> bytes:
    """Return the vectors, in the requested encoding."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _vector(f"{reply.prompt_tokens}:{index}", request.in_base64),
        }
        for index in range(request.inputs)
    ]
    usage = {"prompt_tokens": reply.prompt_tokens, "total_tokens": reply.prompt_tokens}
    return to_json({"object": "list", "data": data, "model": reply.model, "usage": usage})


def _vector(seed: str, in_base64: bool) -> Any:
    draw = Random(seed).random  # noqa: S311 - vectors are no secret
    numbers = [round(draw(), 6) for _ in range(DIMENSIONS)]
    return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *numbers)).decode() if in_base64 else numbers
