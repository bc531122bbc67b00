"""LangChain on ``openai``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from tests.conformance.client import MODEL, QUESTION, RESULT, TOOL, TOOL_SAYS, Answer, Where
from tests.conformance.clients.openai_chat import refusals

TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": TOOL, "description": TOOL_SAYS, "parameters": {"type": "object", "properties": {}}},
    }
]


def connect(where: Where, model: str = MODEL) -> Any:
    return ChatOpenAI(base_url=f"{where.url}/v1", api_key=where.key, model=model)  # type: ignore[arg-type]


class Client:
    endpoint = "/v1/chat/completions"
    exceptions: Mapping[int, str] = {
        401: "OpenAIAuthenticationError",
        404: "OpenAIModelNotFoundError",
        429: "OpenAIRateLimitError",
    }

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        with refusals():
            message = connect(where, model).invoke(QUESTION)
        return Answer(str(message.content), message.response_metadata["finish_reason"] == "length")

    def stream(self, where: Where) -> Answer:
        with refusals():
            chunks = list(connect(where).stream(QUESTION))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        return Answer(str(whole.content), whole.response_metadata["finish_reason"] == "length")

    def loop(self, where: Where) -> int:
        model, results = connect(where).bind_tools(TOOLS), 0
        messages: list[Any] = [HumanMessage(QUESTION)]
        while True:
            message = model.invoke(messages)
            if not message.tool_calls:
                return results
            messages.append(message)
            for call in message.tool_calls:
                messages.append(ToolMessage(RESULT, tool_call_id=call["id"]))
                results += 1
