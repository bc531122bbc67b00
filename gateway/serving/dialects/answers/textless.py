"""Reads an answer without text of the model: the answer comes whole and has no output tokens."""

from __future__ import annotations

from typing import Any

from gateway.errors import UpstreamUnavailable
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.fields.answer_fields import shown_usage, without_houses_own
from gateway.serving.meter import Usage, count


class PlainReading(Reading):
    """Reads embeddings, or a token count: one JSON object, with the input tokens in its usage where it has a usage.

    All of it is relayed except the upstream's model name, the operator's own fields and parts of the usage.
    """

    def __init__(self, request: Any, grant: int) -> None:
        super().__init__(request, grant)
        self._answer: dict[str, Any] = {}

    def feed_whole(self, answer: Any) -> bytes:
        if not isinstance(answer, dict):
            raise UpstreamUnavailable("The upstream's answer is not a JSON object.")
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        self._note_usage(usage, Usage(output_tokens=0, input_tokens=count(usage.get("prompt_tokens"))))
        if "model" in answer:
            answer["model"] = self._request.model
        without_houses_own(answer)
        if isinstance(answer.get("usage"), dict):
            answer["usage"] = shown_usage(usage)
        self._answer, self._ended[0], self.ended_by_itself = answer, "stop", True
        return b""

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        return b""

    def whole(self, billed: int) -> Any:
        return self._answer

    def _take(self, event: dict[str, Any]) -> bytes:
        raise UpstreamUnavailable("The upstream streamed an answer that does not come in parts.")
