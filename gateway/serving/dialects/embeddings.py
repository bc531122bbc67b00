"""OpenAI embeddings: the answer is vectors without output tokens to cap, so only the input is metered."""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body, end_user, named
from gateway.serving.dialects.answers.textless import PlainReading
from gateway.serving.dialects.openai import END_USER, OpenAI
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.prompt import Prompt, prompt_of
from gateway.serving.json_codec import dumps
from gateway.serving.upstream.profiles import EMBEDDINGS


class Embeddings(OpenAI):
    """``POST /v1/embeddings``."""

    endpoint = EMBEDDINGS
    path = "/embeddings"

    def read(self, body: Body, size: int) -> Parameters:
        model = named(body, "model")
        if not _is_input(body.get("input")):
            raise BadRequest("input is a string, tokens, or a list of either.", code="invalid_type", param="input")
        return Parameters(
            model=model,
            requested_tokens=None,
            choices=1,
            stream=False,
            shows_usage=False,
            tool_results=(),
            resent_answer=None,
            input_bound=size,
            input_estimate=-(-size // 4),
            end_user=end_user(body, *END_USER),
            dropped=self._sieve.dropped(body),
            generates=False,
        )

    def prompt(self, body: Body) -> Prompt | None:
        return prompt_of((body["input"],))

    def forward(self, body: Body, request: Parameters, *, grant: int, model: str) -> bytes:
        return dumps({**self._sieve.passed(body), "model": model})

    def reading(self, request: Parameters, *, grant: int) -> PlainReading:
        return PlainReading(request, grant)


def _is_input(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str | int | list) and not isinstance(item, bool) for item in value)
    return isinstance(value, str)
