"""Legacy completions of the simulated model: one or several prompts, each with its own choices."""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.simulator.reply import Chunks, Reply, to_json
from gateway.simulator.request import (
    CHOICES_MAX,
    CheckedRequest,
    flag,
    integer_in,
    limit_in,
    payload_for,
    prompt_tokens,
    seed_in,
    usage_requested,
    within_context,
)


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return a completion's checked request; a prompt that is a list of tokens has as many tokens as the list."""
    payload = payload_for(body, model)
    prompts = _prompts(payload.get("prompt"))
    include, continuous = usage_requested(payload)
    tokens = sum(
        len(prompt) if isinstance(prompt, list) else prompt_tokens([{"content": prompt}], []) for prompt in prompts
    )
    return within_context(
        CheckedRequest(
            model=model,
            prompt_tokens=tokens,
            limit=limit_in(payload, "max_tokens") or 16,
            choices=(integer_in(payload, "n", maximum=CHOICES_MAX) or 1) * len(prompts),
            stream=flag(payload, "stream"),
            include_usage=include,
            continuous_usage=continuous,
            seed=seed_in(payload),
            tool=None,
        ),
        context_tokens,
    )


def _prompts(value: Any) -> list[Any]:
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(item) is int for item in value)):
        return [value]
    if isinstance(value, list) and value and all(isinstance(item, str | list) for item in value):
        return value
    raise BadRequest("prompt is a string, tokens, or a list of either.", param="prompt", code="invalid_type")


def whole(reply: Reply) -> bytes:
    """Return the answer as one ``text_completion``."""
    choices = [
        {"index": index, "text": "".join(choice.pieces()), "logprobs": None, "finish_reason": choice.finish}
        for index, choice in enumerate(reply.choices)
    ]
    return to_json({**reply.head("text_completion"), "choices": choices, "usage": reply.whole_usage()})


class LegacyChunks(Chunks):
    """The events of a chat completion with a text in place of a delta, without events that only begin a message."""

    kind = "text_completion"

    def _piece(self, delta: bytes) -> bytes:
        word = delta.removeprefix(b'{"content":')
        return b'"text":' + (b'""' if word == delta else word[:-1])
