"""``openai`` for Python, chat completions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

from tests.conformance.client import EXCEPTIONS, MODEL, QUESTION, RESULT, TOOL, Answer, Refused, Where

TOOLS: Any = [{"type": "function", "function": {"name": TOOL, "parameters": {"type": "object", "properties": {}}}}]


def connect(where: Where) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{where.url}/v1", api_key=where.key)


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except openai.APIStatusError as error:
        raise Refused(type(error).__name__, error.status_code, error.code) from error


class Client:
    endpoint = "/v1/chat/completions"
    exceptions = EXCEPTIONS

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        with refusals():
            answer = connect(where).chat.completions.create(
                model=model, messages=[{"role": "user", "content": QUESTION}]
            )
        choice = answer.choices[0]
        return Answer(choice.message.content or "", choice.finish_reason == "length")

    def stream(self, where: Where) -> Answer:
        with (
            refusals(),
            connect(where).chat.completions.stream(
                model=MODEL, messages=[{"role": "user", "content": QUESTION}]
            ) as stream,
        ):
            text, reason = "", None
            for event in stream:
                if event.type == "chunk":
                    for choice in event.chunk.choices:
                        text += choice.delta.content or ""
                        reason = choice.finish_reason or reason
        return Answer(text, reason == "length")

    def loop(self, where: Where) -> int:
        client, results = connect(where), 0
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        while True:
            message = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS).choices[0].message
            if not message.tool_calls:
                return results
            messages.append(message)
            for call in message.tool_calls:
                messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULT})
                results += 1
