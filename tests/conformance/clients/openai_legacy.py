"""``openai`` for Python, legacy completions, which have no tools."""

from __future__ import annotations

from tests.conformance.client import MODEL, QUESTION, Answer, Where
from tests.conformance.clients import openai_chat
from tests.conformance.clients.openai_chat import connect, refusals


class Client(openai_chat.Client):
    endpoint = "/v1/completions"

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        with refusals():
            choice = connect(where).completions.create(model=model, prompt=QUESTION).choices[0]
        return Answer(choice.text, choice.finish_reason == "length")

    def stream(self, where: Where) -> Answer:
        text, reason = "", None
        with refusals(), connect(where).completions.create(model=MODEL, prompt=QUESTION, stream=True) as stream:
            for chunk in stream:
                text += chunk.choices[0].text
                reason = chunk.choices[0].finish_reason or reason
        return Answer(text, reason == "length")
