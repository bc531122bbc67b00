"""Reads one answer of the Responses format, streamed or whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gateway.errors import UpstreamUnavailable
from gateway.serving.dialects.reading import Reading
from gateway.serving.dialects.response_items import Items, texts_of
from gateway.serving.dialects.wanted import Wanted
from gateway.serving.jsons import dumps
from gateway.serving.meter import Usage, count
from gateway.serving.sse import named_event

ENDS = {"response.completed": "stop", "response.incomplete": "length"}
NAME = re.compile(r"[a-z_.]+")
FAILURES = frozenset({"response.failed", "response.cancelled", "error"})


class ResponsesReading(Reading):
    """Numbered events, each named by its ``type``. The last one has the whole response, with the usage in it."""

    def __init__(self, wanted: Wanted, grant: int) -> None:
        super().__init__(wanted, grant)
        self._response: dict[str, Any] = {}  # as the upstream showed it last
        self._items = Items()
        self._number = -1

    def _take(self, event: dict[str, Any]) -> bytes:
        kind = event.get("type")
        if not isinstance(kind, str):
            return b""
        if kind in FAILURES:
            raise UpstreamUnavailable("The upstream failed in the middle of its answer.")
        if isinstance(response := event.get("response"), dict):
            if response.get("error"):
                raise UpstreamUnavailable("The upstream failed in the middle of its answer.")
            self._response = response
            self._name()
        if kind in ENDS:
            self._end(kind)
            return b""
        if not NAME.fullmatch(kind):
            return b""
        if text := self._items.text_in(event):
            self._note_text()
            if not self._counts(0, text):
                return b"".join(self._shown(closing) for closing in self._items.closing())
            if kind == "response.output_text.delta":
                self._remember(0, text)
        self._items.take(event)
        self.tool_calls = self._items.tool_calls
        return self._shown(event)

    def _name(self) -> None:
        """Give the response the caller's name of the model, and keep its id."""
        self._response["model"] = self._wanted.model
        if isinstance(named := self._response.get("id"), str) and named:
            self.answer_id = named

    def _end(self, kind: str) -> None:
        """Take the response's end and what it says of the usage."""
        said = self._response.get("usage")
        if isinstance(said, dict):
            self._note_usage(said, read_usage(said))
        if isinstance(output := self._response.get("output"), list):
            self._items.replace(output)
            self.tool_calls = self._items.tool_calls
        reason = ENDS[kind]
        if kind == "response.incomplete":
            details = self._response.get("incomplete_details")
            if isinstance(details, dict) and details.get("reason") == "content_filter":
                reason = "content_filter"
        elif self.tool_calls:
            reason = "tool_calls"
        self._ended[0] = reason
        self.ended_by_itself = not self._was_cut

    def _shown(self, event: dict[str, Any]) -> bytes:
        """Return an event for a streaming caller, with its number."""
        if not self._wanted.stream:
            return b""
        given = event.get("sequence_number")
        self._number = given if type(given) is int else self._number + 1
        return named_event(event["type"], dumps({**event, "sequence_number": self._number}))

    def feed_whole(self, answer: Any) -> bytes:
        if not isinstance(answer, dict) or not isinstance(answer.get("output"), list):
            raise UpstreamUnavailable("The upstream's answer is not a response.")
        self._response = answer
        self._name()
        self._end("response.incomplete" if answer.get("status") == "incomplete" else "response.completed")
        made = self._usage.output_tokens or self._guess(list(texts_of(self._items.all)))
        if made > self._granted:
            self._was_cut, self._ended[0] = True, "length"
            self._items.cut(lambda text: self._part(text, made))
            self.tool_calls = []
        self.ended_by_itself = True
        self._keep(0, list(texts_of(self._items.all)))
        self._remember(0, "".join(texts_of(self._items.all, spoken=True)))
        return b"".join(self._shown(event) for event in self._told())

    def _told(self) -> Iterator[dict[str, Any]]:
        """Yield the events of an answer that came whole."""
        begun = {**self._response, "status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "response": begun}
        yield from self._items.told()

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        response = self.whole(billed)
        kind = "response.incomplete" if response.get("status") == "incomplete" else "response.completed"
        told = {"charge_nanousd": charge_nanousd, "conversation_tokens_left": conversation_left}
        last = {"type": kind, "response": response, "sequence_number": self._number + 1, "tokencap": told}
        return named_event(kind, dumps(last))

    def whole(self, billed: int) -> Any:
        ended = self._response
        if self._was_cut:
            ended = {**ended, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        elif not self._response.get("status") or self._response["status"] == "in_progress":
            ended = {**ended, "status": "completed"}
        prompt = self._input
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        totals = {"input_tokens": prompt, "output_tokens": billed, "total_tokens": prompt + billed}
        return {**ended, "output": self._items.all, "usage": {**details, **self._said, **totals}}


def read_usage(said: dict[str, Any]) -> Usage:
    """Return the usage as a response writes it."""
    given, made = said.get("input_tokens_details"), said.get("output_tokens_details")
    return Usage(
        output_tokens=count(said.get("output_tokens")),
        input_tokens=count(said.get("input_tokens")),
        cached_tokens=count(given.get("cached_tokens") if isinstance(given, dict) else None) or 0,
        reasoning_tokens=count(made.get("reasoning_tokens") if isinstance(made, dict) else None) or 0,
    )
