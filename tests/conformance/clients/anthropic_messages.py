"""``anthropic`` for Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic

from tests.conformance.client import EXCEPTIONS, MODEL, QUESTION, RESULT, TOOL, Answer, Refused, Where

ASKED: Any = [{"role": "user", "content": QUESTION}]
TOOLS: Any = [{"name": TOOL, "input_schema": {"type": "object", "properties": {}}}]
MOST = 10_000


def connect(where: Where) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=where.url, api_key=where.key)


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except anthropic.APIStatusError as error:
        body: Any = error.body
        raise Refused(type(error).__name__, error.status_code, body["error"]["code"]) from error


class Client:
    endpoint = "/v1/messages"
    exceptions = EXCEPTIONS

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        with refusals():
            answer = connect(where).messages.create(model=model, messages=ASKED, max_tokens=MOST)
        return Answer(_text(answer), answer.stop_reason == "max_tokens")

    def stream(self, where: Where) -> Answer:
        with refusals(), connect(where).messages.stream(model=MODEL, messages=ASKED, max_tokens=MOST) as stream:
            text = "".join(stream.text_stream)
            answer = stream.get_final_message()
        assert _text(answer) == text
        return Answer(text, answer.stop_reason == "max_tokens")

    def loop(self, where: Where) -> int:
        client, results = connect(where), 0
        messages: list[Any] = list(ASKED)
        while True:
            with client.messages.stream(model=MODEL, messages=messages, tools=TOOLS, max_tokens=MOST) as stream:
                answer = stream.get_final_message()
            calls = [block for block in answer.content if block.type == "tool_use"]
            if not calls:
                return results
            messages.append({"role": "assistant", "content": answer.content})
            tool_results = [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT} for call in calls]
            messages.append({"role": "user", "content": tool_results})
            results += len(tool_results)


def _text(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")
