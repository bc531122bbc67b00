"""OpenAI chat completions: which fields are limits, which may pass, and what a body asks for."""

from __future__ import annotations

import json
from typing import Any

from gateway.errors import BadRequest
from gateway.serving.body import Body, flag, positive
from gateway.serving.dialects.chat_reading import ChatReading
from gateway.serving.dialects.dialect import Wanted

CHOICES_MOST = 16

TOOL_RESULTS_MOST = 16

LIMITS = ("max_completion_tokens", "max_tokens")
"""Both are told to the upstream, whichever the caller used."""

ENGINE_LIMITS = ("n_predict", "num_predict", "max_new_tokens", "max_output_tokens", "max_gen_tokens")
"""Engines' own spellings: the caller's value counts as a limit, and the upstream is told the grant in its place."""

PASSED = frozenset(
    {
        "messages",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "response_format",
        "reasoning_effort",
        "verbosity",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "modalities",
        "audio",
        "prediction",
        "user",
        "metadata",
    }
)
"""What reaches the upstream as it came. Any other field is dropped."""


class Chat:
    """``POST /v1/chat/completions``."""

    endpoint = "/v1/chat/completions"
    path = "/chat/completions"

    def read(self, body: Body, size: int) -> Wanted:
        model = body.get("model")
        if not isinstance(model, str):
            raise BadRequest("model is a string.", code="invalid_type", param="model")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise BadRequest("messages is a list of at least one object.", code="invalid_type", param="messages")
        limits = [limit for field in (*LIMITS, *ENGINE_LIMITS) if (limit := positive(body, field)) is not None]
        return Wanted(
            model=model,
            requested_tokens=min(limits, default=None),
            choices=positive(body, "n", CHOICES_MOST) or 1,
            stream=flag(body, "stream"),
            shows_usage=_shows_usage(body),
            tool_results=_tool_results(messages),
            brought_back=_last_answer(messages),
            input_bound=size,
            input_estimate=-(-size // 4),
        )

    def forward(self, body: Body, wanted: Wanted, *, grant: int, model: str) -> bytes:
        passed = {name: value for name, value in body.items() if name in PASSED}
        limits = dict.fromkeys(LIMITS, grant) | {name: grant for name in ENGINE_LIMITS if body.get(name) is not None}
        choices = {"n": wanted.choices} if wanted.choices > 1 else {}
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        whole = {"model": model, **passed, **choices, **limits, **streamed}
        return json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    def reading(self, wanted: Wanted, *, grant: int) -> ChatReading:
        return ChatReading(wanted, grant)


def _shows_usage(body: Body) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise BadRequest("stream_options is an object.", code="invalid_type", param="stream_options")
    if not flag(body, "stream"):
        raise BadRequest("stream_options is only for a stream.", param="stream_options")
    return flag(options, "include_usage")


def _tool_results(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the tool calls answered since the model last spoke, newest first."""
    results: list[str] = []
    for message in reversed(messages):
        call = message.get("tool_call_id")
        if message.get("role") != "tool" or not isinstance(call, str) or len(results) == TOOL_RESULTS_MOST:
            break
        results.append(call)
    return tuple(results)


def _last_answer(messages: list[dict[str, Any]]) -> str | None:
    """Return the text of the model's last message, or None where it has none."""
    last = next((message for message in reversed(messages) if message.get("role") == "assistant"), None)
    content = last.get("content") if last else None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) and content else None
