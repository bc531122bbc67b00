"""OpenAI chat completions: how a request is read and forwarded, and which fields are limits."""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body, end_user, flag, least, named, positive
from gateway.serving.dialects.answers.chat_answer import ChatReading
from gateway.serving.dialects.answers.whole_answer import comes_whole
from gateway.serving.dialects.openai import END_USER, ENGINE_LIMITS, OpenAI, check_best_of, shows_usage
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.identity import history_of
from gateway.serving.dialects.requests.media import Measured
from gateway.serving.dialects.requests.prompt import Prompt, prompt_of
from gateway.serving.json_codec import dumps
from gateway.serving.upstream.profiles import CHAT

TOOL_RESULTS_MOST = 16

OTHER_LIMITS = (*ENGINE_LIMITS, "max_output_tokens")
LIMITS = ("max_completion_tokens", "max_tokens", *OTHER_LIMITS)


class Chat(OpenAI):
    """``POST /v1/chat/completions``."""

    endpoint = CHAT
    path = "/chat/completions"

    def read(self, body: Body, size: int) -> Parameters:
        model = named(body, "model")
        messages = body.get("messages")
        if not isinstance(messages, list) or set(map(type, messages)) != {dict}:
            raise BadRequest("messages is a list of at least one object.", code="invalid_type", param="messages")
        choices = positive(body, "n", self._profile.choices_most) or 1
        check_best_of(body, choices)
        results = _tool_results(messages)
        history = history_of(messages) if results or body.get("tools") or body.get("functions") else ""
        measured = Measured(size, self._profile.media).take(messages)
        return Parameters(
            model=model,
            requested_tokens=None if body.keys().isdisjoint(LIMITS) else least(body, *LIMITS),
            choices=choices,
            stream=flag(body, "stream"),
            shows_usage=shows_usage(body),
            tool_results=results,
            resent_answer=_last_answer(messages),
            input_bound=measured.bound,
            input_estimate=measured.estimate,
            history=history,
            resent_history=history,
            end_user=end_user(body, *END_USER),
            dropped=self._sieve.dropped(body),
            comes_whole=comes_whole(self._profile, body, choices),
            counted_apart=self._profile.counts_choices_apart,
            runs_apart=self._profile.continuous_usage,
        )

    def prompt(self, body: Body) -> Prompt | None:
        return prompt_of((body["messages"],), [body.get(name) for name in ("tools", "functions") if body.get(name)])

    def forward(self, body: Body, request: Parameters, *, grant: int, model: str) -> bytes:
        own = (
            self._profile.chat_limits if body.get("prediction") is None else ("max_tokens",)
        )  # a prediction excludes max_completion_tokens
        limits = self._limits(body, own, OTHER_LIMITS, grant)
        choices = {"n": request.choices} if request.choices > 1 else {}
        return dumps(
            {**self._passed(body, request, grant), "model": model, **choices, **limits, **self._streamed(body, request)}
        )

    def reading(self, request: Parameters, *, grant: int) -> ChatReading:
        return ChatReading(request, grant)


def _tool_results(messages: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the ids of the tool calls that the last messages answer, newest first."""
    results: list[str] = []
    for message in reversed(messages):
        call = message.get("tool_call_id")
        if message.get("role") != "tool" or not isinstance(call, str) or len(results) == TOOL_RESULTS_MOST:
            break
        results.append(call)
    return tuple(results)


def _last_answer(messages: list[dict[str, Any]]) -> str | None:
    """Return the text of the model's last message, or None where there is no such text."""
    for message in reversed(messages):
        if message.get("role") == "assistant":
            return text_of(message.get("content"))
    return None


def text_of(content: Any) -> str | None:
    """Return the text of a message's content, which is one string or a list of parts; None where it has no text."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) and content else None
