"""Legacy completions of the simulated model: one prompt or several, each with its own choices."""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.simulator.reply import Chunks, Reply, to_json
from gateway.simulator.request import (
    CHOICES_MAX,
    CheckedRequest,
    flag,
    given_to,
    limit_in,
    prompt_tokens,
    seed_in,
    usage_asked,
    whole_in,
    within_context,
)


def read(body: bytes, model: str, context_tokens: int) -> CheckedRequest:
    """Return what a completion requests; a prompt in tokens has the tokens that it lists."""
    given = given_to(body, model)
    prompts = _prompts(given.get("prompt"))
    include, continuous = usage_asked(given)
    tokens = sum(len(one) if isinstance(one, list) else prompt_tokens([{"content": one}], []) for one in prompts)
    return within_context(
        CheckedRequest(
            model=model,
            prompt_tokens=tokens,
            limit=limit_in(given, "max_tokens") or 16,
            choices=(whole_in(given, "n", most=CHOICES_MAX) or 1) * len(prompts),
            stream=flag(given, "stream"),
            include_usage=include,
            continuous_usage=continuous,
            seed=seed_in(given),
            tool=None,
        ),
        context_tokens,
    )


def _prompts(given: Any) -> list[Any]:
    if isinstance(given, str) or (isinstance(given, list) and given and all(type(one) is int for one in given)):
        return [given]
    if isinstance(given, list) and given and all(isinstance(one, str | list) for one in given):
        return given
    raise BadRequest("prompt is a string, tokens, or a list of either.", param="prompt", code="invalid_type")


def whole(reply: Reply) -> bytes:
    """Return the answer as one ``text_completion``."""
    choices = [
        {"index": index, "text": "".join(choice.pieces()), "logprobs": None, "finish_reason": choice.finish}
        for index, choice in enumerate(reply.choices)
    ]
    return to_json({**reply.head("text_completion"), "choices": choices, "usage": reply.whole_usage()})


class LegacyChunks(Chunks):
    """The events of a chat completion with a text in place of a delta, without those that only begin a message."""

    kind = "text_completion"

    def _piece(self, delta: bytes) -> bytes:
        word = delta.removeprefix(b'{"content":')
        return b'"text":' + (b'""' if word == delta else word[:-1])
