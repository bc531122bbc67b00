"""OpenAI's legacy completions: one prompt or several, each with its own choices."""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body, end_user, flag, least, named, positive
from gateway.serving.dialects.answers.assembly import joined, take
from gateway.serving.dialects.answers.chat_answer import ChatReading
from gateway.serving.dialects.answers.whole_answer import comes_whole
from gateway.serving.dialects.openai import END_USER, ENGINE_LIMITS, OpenAI, check_best_of, shows_usage
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.prompt import Prompt, prompt_of
from gateway.serving.fields.answer_fields import CHOICE
from gateway.serving.json_codec import dumps
from gateway.serving.upstream.profiles import COMPLETIONS

OTHER_LIMITS = (*ENGINE_LIMITS, "max_completion_tokens", "max_output_tokens")


class Completions(OpenAI):
    """``POST /v1/completions``."""

    endpoint = COMPLETIONS
    path = "/completions"

    def read(self, body: Body, size: int) -> Parameters:
        model = named(body, "model")
        prompts, text = _prompts(body.get("prompt"))
        choices_most = self._profile.choices_most
        choices_each = positive(body, "n", choices_most) or 1
        if prompts * choices_each > choices_most:
            raise BadRequest(f"prompts × n is at most {choices_most}.", code="integer_above_max_value", param="prompt")
        check_best_of(body, choices_each)
        return Parameters(
            model=model,
            requested_tokens=least(body, "max_tokens", *OTHER_LIMITS),
            choices=prompts * choices_each,
            stream=flag(body, "stream"),
            shows_usage=shows_usage(body),
            tool_results=(),
            resent_answer=text,
            input_bound=size,
            input_estimate=-(-size // 4),
            end_user=end_user(body, *END_USER),
            dropped=self._sieve.dropped(body),
            comes_whole=comes_whole(self._profile, body, prompts * choices_each),
            counted_apart=self._profile.counts_choices_apart,
            runs_apart=self._profile.continuous_usage,
        )

    def prompt(self, body: Body) -> Prompt | None:
        return prompt_of((body["prompt"], body.get("suffix")))

    def forward(self, body: Body, request: Parameters, *, grant: int, model: str) -> bytes:
        limits = self._limits(body, ("max_tokens",), OTHER_LIMITS, grant)
        choices = {"n": body["n"]} if body.get("n") is not None else {}
        return dumps(
            {**self._passed(body, request, grant), "model": model, **choices, **limits, **self._streamed(body, request)}
        )

    def reading(self, request: Parameters, *, grant: int) -> CompletionsReading:
        return CompletionsReading(request, grant)


class CompletionsReading(ChatReading):
    """Reads choices that have a ``text`` in place of a delta or message."""

    kind = chunk_kind = "text_completion"
    known = CHOICE - {"delta", "message"}

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        text = choice.get("text")
        return {"content": text} if isinstance(text, str) else {}

    def _message(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._delta(choice)

    def _shown(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"text": delta.get("content", "")}

    def _whole_choice(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"text": message.get("content", "")}

    def _assemble(self, choice: dict[str, Any]) -> None:
        assembled = self._choices.setdefault(choice["index"], {"index": choice["index"], "logprobs": None})
        take(assembled, choice)

    def _whole(self, choice: dict[str, Any]) -> dict[str, Any]:
        assembled = joined(choice)
        return {**assembled, "text": assembled.get("text") or ""}


def _prompts(prompt: Any) -> tuple[int, str | None]:
    """Return the number of prompts, and the text where there is one prompt and it is text."""
    if isinstance(prompt, str):
        return 1, prompt or None
    if isinstance(prompt, list) and prompt:
        if all(_is_token(item) for item in prompt):
            return 1, None
        if all(isinstance(item, str) for item in prompt):
            return len(prompt), prompt[0] or None if len(prompt) == 1 else None
        if all(isinstance(item, list) and item and all(_is_token(token) for token in item) for item in prompt):
            return len(prompt), None
    raise BadRequest("prompt is a string, tokens, or a list of either.", code="invalid_type", param="prompt")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
