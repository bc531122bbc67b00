"""OpenAI Responses: how a request is read and forwarded, with earlier answers, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gateway.errors import BadRequest, TokencapError, UpstreamErrorEvent, UpstreamUnavailable
from gateway.serving.caller.json_body import Body, end_user, flag, least, named
from gateway.serving.dialects.answers.response_events import texts_of
from gateway.serving.dialects.answers.response_items import Items
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.answers.whole_answer import comes_whole, streamed
from gateway.serving.dialects.chat import TOOL_RESULTS_MOST, text_of
from gateway.serving.dialects.openai import END_USER, ENGINE_LIMITS, OpenAI
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.identity import history_of
from gateway.serving.dialects.requests.media import Measured
from gateway.serving.dialects.requests.prompt import Prompt, prompt_of
from gateway.serving.fields.answer_fields import EVENT, shown_usage, without_houses_own, without_unknown_texts
from gateway.serving.json_codec import dumps
from gateway.serving.meter import Usage, count, reported_output
from gateway.serving.sse import named_event
from gateway.serving.upstream.profiles import RESPONSES

ENDS = {"response.completed": "stop", "response.incomplete": "length"}
NAME = re.compile(r"[a-z_.]+")
LACKED: dict[str, Any] = {
    **{"id": "", "object": "response", "created_at": 0, "parallel_tool_calls": True, "tool_choice": "auto"},
    **{"output": list, "tools": list},
}
"""Fields that OpenAI's own clients need in every response and engines leave out, with their defaults."""

USAGE_DETAILS = {
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}

BEGINNINGS = frozenset({"response.created", "response.queued", "response.in_progress"})
FAILED = frozenset({"failed", "cancelled"})
FAILURES = frozenset({"response.failed", "response.cancelled", "error"})


class ResponsesReading(Reading):
    """Reads numbered events, each named by its ``type``. The last event has the whole response, including the usage."""

    def __init__(self, request: Parameters, grant: int) -> None:
        super().__init__(request, grant)
        self._is_created = False
        self._response = _response(request.model)  # the response in the upstream's last event that has one
        self._items = Items()
        self._number = -1

    def _take(self, event: dict[str, Any]) -> bytes:
        kind = event.get("type")
        if not isinstance(kind, str):
            return b""
        without_houses_own(event)
        if isinstance(response := event.get("response"), dict):
            self._response = response
            self._name()
        has_failed = isinstance(response, dict) and (response.get("error") or _status(response) in FAILED)
        if has_failed or kind in FAILURES:
            raise UpstreamErrorEvent(response if isinstance(response, dict) else event)
        if kind in ENDS:
            return self._last(kind)
        if not NAME.fullmatch(kind):
            return b""
        event = without_unknown_texts(event, EVENT)
        if kind in BEGINNINGS and not isinstance(response, dict):
            return b"" if kind == "response.created" else self._show([{**event, "response": self._begun()}])
        if text := self._items.text_in(event):
            self._note_text()
            if not self._counts(0):
                return self._show(self._items.closing(is_cut=True))
            item = event.get("item")
            if kind.startswith("response.output_text.") or (isinstance(item, dict) and item.get("type") == "message"):
                self._remember(0, text)
        shown = self._items.take(event)
        self._wrote(0, text if shown else "")
        self.tool_calls = self._items.tool_calls
        return self._show(shown)

    def _last(self, kind: str) -> bytes:
        """Take the end of a response; return the events that close open items, and the events of unannounced items."""
        added = self._end(kind)
        shown = list(self._items.closing(is_cut=self._ended[0] == "length"))
        for item in added:
            if (text := "".join(texts_of([item]))) and not self._counts(0):
                break
            self._wrote(0, text)
            shown += self._items.take_whole(item)
        self.tool_calls = self._items.tool_calls
        self.ended_by_itself = not self._was_cut
        return self._show(shown)

    def _done(self) -> bytes:
        return self._show(self._items.closing(is_cut=False))

    @property
    def item_ids(self) -> list[str]:
        return [item_id for item in self._items.all if isinstance(item_id := item.get("id"), str) and item_id]

    def _name(self) -> None:
        """Give the response the caller's name of the model, the fields it lacks, and its first id.

        Clients refuse an id that changes.
        """
        self._response["model"] = self._request.model
        without_houses_own(self._response)
        if isinstance(usage := self._response.get("usage"), dict):
            self._response["usage"] = shown_usage(usage)
        if self.answer_id is not None:
            self._response["id"] = self.answer_id
        elif self._is_created:
            self._response["id"] = ""  # the caller was sent the response without an id
        elif isinstance(response_id := self._response.get("id"), str) and response_id:
            self.answer_id = response_id
        else:
            self._response["id"] = ""
        for name, value in _response(self._request.model).items():
            if self._response.get(name) is None:
                self._response[name] = value

    def _end(self, kind: str) -> list[dict[str, Any]]:
        """Take the response's end and its usage; return its items that no earlier event announced."""
        usage = self._response.get("usage")
        if isinstance(usage, dict):
            self._note_usage(usage, read_usage(usage))
        output = self._response.get("output")
        added = self._items.finish(output) if isinstance(output, list) else []
        self.tool_calls = self._items.tool_calls
        self._ended[0] = self._reason(kind, added)
        return added

    def _reason(self, kind: str, added: list[dict[str, Any]]) -> str:
        """Return how the response ended. Engines without ``incomplete_details`` report a cut response as completed."""
        details, status = self._response.get("incomplete_details"), self._response.get("status")
        reason = details.get("reason") if isinstance(details, dict) else None
        if kind == "response.incomplete" or status == "incomplete":
            return "content_filter" if reason == "content_filter" else "length"
        if "incomplete_details" not in self._response and (self.usage.output_tokens or 0) >= self._grant:
            return "length"
        return "tool_calls" if self.tool_calls or any(item.get("call_id") for item in added) else "stop"

    def _show(self, events: Iterable[dict[str, Any]]) -> bytes:
        """Return events for a streaming caller; the first is the event that creates the response, as clients expect."""
        if not self._request.stream:
            for _ in events:  # a generator changes the items only while it is read
                pass
            return b""
        shown: list[bytes] = []
        for event in events:
            if not self._is_created:
                self._is_created = True
                if event["type"] != "response.created":
                    shown.append(self._shown({"type": "response.created", "response": self._begun()}))
            shown.append(self._shown(event))
        return b"".join(shown)

    def _begun(self) -> dict[str, Any]:
        """Return the response in its state before the first item."""
        return {**self._response, "status": "in_progress", "output": [], "usage": None}

    def _shown(self, event: dict[str, Any]) -> bytes:
        """Return an event for a streaming caller, with its number."""
        number = event.get("sequence_number")
        self._number = number if type(number) is int and number > self._number else self._number + 1
        return named_event(event["type"], dumps({**event, "sequence_number": self._number}))

    def feed_whole(self, answer: Any) -> bytes:
        if not isinstance(answer, dict) or not isinstance(answer.get("output"), list):
            raise UpstreamUnavailable("The upstream's answer is not a response.")
        if _status(answer) in FAILED:
            raise UpstreamErrorEvent(answer)
        self._response = answer
        self._name()
        for item in self._end("response.completed"):
            self._items.take_whole(item)
        self.tool_calls = self._items.tool_calls
        made = self._made(list(texts_of(self._items.all)))
        if made > self._granted:
            self._was_cut, self._ended[0] = True, "length"
            self._items.cut(lambda text: self._part(text, made))
            self.tool_calls = []
        self.ended_by_itself = True
        self._keep(0, texts_of(self._items.all))
        self._remember(0, "".join(texts_of(self._items.all, spoken=True)))
        return self._show([{"type": "response.created", "response": self._begun()}, *self._items.whole_events()])

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        response = self.whole(billed)
        kind = "response.incomplete" if response.get("status") == "incomplete" else "response.completed"
        tokencap = {"charge_nanousd": charge_nanousd, "conversation_tokens_left": conversation_left}
        shown = self._show([{"type": "response.created", "response": self._begun()}]) if not self._is_created else b""
        last = {"type": kind, "response": response, "sequence_number": self._number + 1, "tokencap": tokencap}
        return shown + named_event(kind, dumps(last))

    def failed(self, error: TokencapError) -> bytes:
        """Return ``response.failed``; its error is also outside the response, as in every stream of this gateway."""
        body = error.body()
        cause = {"code": error.code or "server_error", "message": error.message}
        response = {**self._response, "status": "failed", "error": cause, "output": self._items.all, "usage": None}
        last = {**body, "type": "response.failed", "response": response, "sequence_number": self._number + 1}
        return named_event("response.failed", dumps(last))

    def whole(self, billed: int) -> Any:
        ended = self._response
        if self._was_cut or (self._ended.get(0) == "length" and ended.get("status") != "incomplete"):
            ended = {**ended, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        elif ended.get("status") not in ("completed", "incomplete"):
            ended = {**ended, "status": "completed"}
        prompt = self._input
        details = {
            name: {**zeros, **(reported if isinstance(reported := self._reported_usage.get(name), dict) else {})}
            for name, zeros in USAGE_DETAILS.items()
        }
        totals = {"input_tokens": prompt, "output_tokens": billed, "total_tokens": prompt + billed}
        return {**ended, "output": self._items.all, "usage": {**self._reported_usage, **details, **totals}}


def _status(response: dict[str, Any]) -> str | None:
    status = response.get("status")
    return status if isinstance(status, str) else None


def _response(model: str) -> dict[str, Any]:
    """Return the fields that every response has, with the values for a response that the upstream has not sent."""
    return {"model": model, **{name: value() if callable(value) else value for name, value in LACKED.items()}}


def read_usage(reported: dict[str, Any]) -> Usage:
    """Return the usage that a response reports."""
    input_details, output_details = reported.get("input_tokens_details"), reported.get("output_tokens_details")
    cached, thought = (
        count(input_details.get("cached_tokens") if isinstance(input_details, dict) else None) or 0,
        count(output_details.get("reasoning_tokens") if isinstance(output_details, dict) else None) or 0,
    )
    prompt = count(reported.get("input_tokens"))
    output, is_disputed = reported_output(
        count(reported.get("output_tokens")), thought, prompt, count(reported.get("total_tokens"))
    )
    return Usage(output, prompt, cached, thought, is_disputed)


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

    def read(self, body: Body, size: int) -> Parameters:
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
        return Parameters(
            model=model,
            requested_tokens=least(body, "max_output_tokens", *OTHER_LIMITS),
            choices=1,
            stream=flag(body, "stream"),
            shows_usage=True,
            tool_results=results,
            resent_answer=_last_answer(items),
            input_bound=measured.bound,
            input_estimate=measured.estimate,
            history=history,
            resent_history=history,
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
            return None  # only the upstream has the earlier part of the conversation
        return prompt_of((body.get("instructions"), body["input"]), body.get("tools"))

    def forward(self, body: Body, request: Parameters, *, grant: int, model: str) -> bytes:
        limits = self._limits(body, ("max_output_tokens",), OTHER_LIMITS, grant)
        passed = self._passed(body, request, grant)
        return dumps({**passed, "model": model, **limits, **streamed(body, request)})

    def reading(self, request: Parameters, *, grant: int) -> ResponsesReading:
        return ResponsesReading(request, grant)


def _items(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise BadRequest("input is a string or a list of at least one object.", code="invalid_type", param="input")
    return value


def _conversation(value: Any) -> str | None:
    name = value.get("id") if isinstance(value, dict) else value
    if value is not None and not isinstance(name, str):
        raise BadRequest("conversation is an id.", code="invalid_type", param="conversation")
    return name


def _tool_results(items: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the ids of the tool calls that the last items answer, newest first."""
    results: list[str] = []
    for item in reversed(items):
        call = item.get("call_id")
        if item.get("type") not in TOOL_RESULTS or not isinstance(call, str) or len(results) == TOOL_RESULTS_MOST:
            break
        results.append(call)
    return tuple(results)


def _references(items: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the ids in items that refer to parts of earlier answers, oldest first; such items may lack a type."""
    objects = [item for item in items if isinstance(item, dict)]
    ids = [item.get("id") for item in objects if item.get("type") == "item_reference" or item.keys() == {"id"}]
    if len(ids) > REFERENCES_MOST:
        raise BadRequest(f"At most {REFERENCES_MOST:,} items are referred to.", param="input")
    return tuple(dict.fromkeys(item_id for item_id in ids if isinstance(item_id, str)))


def _last_answer(items: list[dict[str, Any]]) -> str | None:
    last = next((item for item in reversed(items) if item.get("role") == "assistant"), None)
    return text_of(last.get("content")) if last else None
