"""LiteLLM as a client: one call for every maker's format."""

from __future__ import annotations

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it fetches a newer list of prices
import litellm


def options_of(url: str, key: str, model: str, maker: str) -> dict[str, Any]:
    return {"model": f"{maker}/{model}", "api_base": url if maker == "anthropic" else f"{url}/v1", "api_key": key}


def messages_of(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]


def complete(*, url: str, key: str, model: str, question: str, maker: str) -> Any:
    answer: Any = litellm.completion(**options_of(url, key, model, maker), messages=messages_of(question))
    return {"text": answer.choices[0].message.content, "was_cut": answer.choices[0].finish_reason == "length"}


def stream(*, url: str, key: str, model: str, question: str, maker: str) -> Any:
    text, reason = "", None
    chunks: Any = litellm.completion(**options_of(url, key, model, maker), messages=messages_of(question), stream=True)
    for chunk in chunks:
        text += chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason or reason
    return {"text": text, "was_cut": reason == "length"}


def loop(*, url: str, key: str, model: str, question: str, maker: str, tool: str, result: str) -> Any:
    tools = [{"type": "function", "function": {"name": tool, "parameters": {"type": "object", "properties": {}}}}]
    messages, results = messages_of(question), 0
    while True:
        answer: Any = litellm.completion(**options_of(url, key, model, maker), messages=messages, tools=tools)
        message = answer.choices[0].message
        if not message.tool_calls:
            return {"results": results}
        messages.append(message)
        for call in message.tool_calls:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
            results += 1
