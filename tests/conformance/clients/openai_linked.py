"""``openai`` for Python, Responses: continued by ``previous_response_id``, and streamed by the client's helper."""

from __future__ import annotations

from typing import Any

from openai import omit

from tests.conformance.client import MODEL, QUESTION, RESULT, Answer, Where
from tests.conformance.clients import openai_responses
from tests.conformance.clients.openai_chat import connect, refusals
from tests.conformance.clients.openai_responses import TOOLS


class Client(openai_responses.Client):
    def stream(self, where: Where) -> Answer:
        text, was_cut = "", False
        with refusals(), connect(where).responses.stream(model=MODEL, input=QUESTION) as stream:
            for event in stream:
                if event.type == "response.output_text.done":
                    text += event.text
                was_cut = was_cut or event.type == "response.incomplete"
        return Answer(text, was_cut)

    def loop(self, where: Where) -> int:
        client, results = connect(where), 0
        new: Any = QUESTION
        previous: Any = omit
        while True:
            answer = client.responses.create(model=MODEL, input=new, tools=TOOLS, previous_response_id=previous)
            calls = [item for item in answer.output if item.type == "function_call"]
            if not calls:
                return results
            new = [{"type": "function_call_output", "call_id": call.call_id, "output": RESULT} for call in calls]
            previous, results = answer.id, results + len(new)
