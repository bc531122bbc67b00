"""``openai`` for Python, Responses: continued by sending back every item."""

from __future__ import annotations

from typing import Any

from tests.conformance.client import EXCEPTIONS, MODEL, QUESTION, RESULT, TOOL, Answer, Where
from tests.conformance.clients.openai_chat import connect, refusals

TOOLS: Any = [{"type": "function", "name": TOOL, "parameters": {"type": "object", "properties": {}}, "strict": False}]


class Client:
    endpoint = "/v1/responses"
    exceptions = EXCEPTIONS

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        with refusals():
            answer = connect(where).responses.create(model=model, input=QUESTION)
        return Answer(answer.output_text, answer.status == "incomplete")

    def stream(self, where: Where) -> Answer:
        text, was_cut = "", False
        with refusals(), connect(where).responses.create(model=MODEL, input=QUESTION, stream=True) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    text += event.delta
                was_cut = was_cut or event.type == "response.incomplete"
        return Answer(text, was_cut)

    def loop(self, where: Where) -> int:
        client, results = connect(where), 0
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        while True:
            answer = client.responses.create(model=MODEL, input=items, tools=TOOLS)
            calls = [item for item in answer.output if item.type == "function_call"]
            if not calls:
                return results
            items += answer.output
            for call in calls:
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": RESULT})
                results += 1
