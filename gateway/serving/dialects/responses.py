"""OpenAI Responses: a list of items in, a list of items out, and earlier answers that a call goes on from."""

from __future__ import annotations

from typing import Any

from gateway.errors import BadRequest
from gateway.serving.caller.json_body import Body, end_user, flag, least, named
from gateway.serving.dialects.answers.responses_answer import ResponsesReading
from gateway.serving.dialects.answers.whole import comes_whole, streamed
from gateway.serving.dialects.chat import TOOL_RESULTS_MOST, text_of
from gateway.serving.dialects.openai import END_USER, ENGINE_LIMITS, OpenAI
from gateway.serving.dialects.parameters import Wanted
from gateway.serving.dialects.requests.history import history_of
from gateway.serving.dialects.requests.media import Measured
from gateway.serving.dialects.requests.prompt import Prompt, prompt_of
from gateway.serving.json_codec import dumps
from gateway.serving.upstream.profiles import RESPONSES

OTHER_LIMITS = (*ENGINE_LIMITS, "max_tokens", "max_completion_tokens")

REFERENCES_MOST = 1_000

TOOL_RESULTS = frozenset(
    {
        *("function_call_output", "custom_tool_call_output", "local_shell_call_output", "shell_call_output"),
        *("apply_patch_call_output", "computer_call_output", "tool_search_output"),
    }
)


class Responses(OpenAI):
    """``POST /v1/responses``."""

    endpoint = RESPONSES
    path = "/responses"

    def read(self, body: Body, size: int) -> Wanted:
        model = named(body, "model")
        items = _items(body.get("input"))
        previous = body.get("previous_response_id")
        if previous is not None and not isinstance(previous, str):
            raise BadRequest("previous_response_id is a string.", code="invalid_type", param="previous_response_id")
        results = _tool_results(items)
        history = history_of(items) if results or body.get("tools") else ""
        references = _references(items)
        measured = Measured(size, self._profile.media).take(items)
        if isinstance(body.get("prompt"), dict):
            measured.refer()
        return Wanted(
            model=model,
            requested_tokens=least(body, "max_output_tokens", *OTHER_LIMITS),
            choices=1,
            stream=flag(body, "stream"),
            shows_usage=True,
            tool_results=results,
            brought_back=_last_answer(items),
            input_bound=measured.bound,
            input_estimate=measured.estimate,
            history=history,
            brought_history=history,
            end_user=end_user(body, *END_USER),
            dropped=self._sieve.dropped(body),
            conversation=_conversation(body.get("conversation")),
            references=references,
            refers=previous is not None or bool(references) or body.get("conversation") is not None,
            previous=previous,
            comes_whole=comes_whole(self._profile, body),
        )

    def prompt(self, body: Body) -> Prompt | None:
        items = body["input"] if isinstance(body["input"], list) else []
        if body.get("previous_response_id") is not None or body.get("conversation") is not None or _references(items):
            return None  # what was said before is the upstream's to know
        return prompt_of((body.get("instructions"), body["input"]), body.get("tools"))

    def forward(self, body: Body, wanted: Wanted, *, grant: int, model: str) -> bytes:
        limits = self._limits(body, ("max_output_tokens",), OTHER_LIMITS, grant)
        passed = self._passed(body, wanted, grant)
        return dumps({**passed, "model": model, **limits, **streamed(body, wanted)})

    def reading(self, wanted: Wanted, *, grant: int) -> ResponsesReading:
        return ResponsesReading(wanted, grant)


def _items(given: Any) -> list[dict[str, Any]]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given or not all(isinstance(item, dict) for item in given):
        raise BadRequest("input is a string or a list of at least one object.", code="invalid_type", param="input")
    return given


def _conversation(given: Any) -> str | None:
    name = given.get("id") if isinstance(given, dict) else given
    if given is not None and not isinstance(name, str):
        raise BadRequest("conversation is an id.", code="invalid_type", param="conversation")
    return name


def _tool_results(items: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the tool calls answered since the model last spoke, newest first."""
    results: list[str] = []
    for item in reversed(items):
        call = item.get("call_id")
        if item.get("type") not in TOOL_RESULTS or not isinstance(call, str) or len(results) == TOOL_RESULTS_MOST:
            break
        results.append(call)
    return tuple(results)


def _references(items: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the ids of items that stand for what an earlier answer said, oldest first; their type may be left out."""
    objects = [item for item in items if isinstance(item, dict)]
    named = [item.get("id") for item in objects if item.get("type") == "item_reference" or item.keys() == {"id"}]
    if len(named) > REFERENCES_MOST:
        raise BadRequest(f"At most {REFERENCES_MOST:,} items are referred to.", param="input")
    return tuple(dict.fromkeys(one for one in named if isinstance(one, str)))


def _last_answer(items: list[dict[str, Any]]) -> str | None:
    last = next((item for item in reversed(items) if item.get("role") == "assistant"), None)
    return text_of(last.get("content")) if last else None
