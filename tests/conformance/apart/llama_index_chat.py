"""LlamaIndex's model for endpoints like OpenAI's, and its agent on that model."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Thing(BaseModel):
    name: str
    length_m: float


def connect(url: str, key: str, model: str) -> Any:
    return OpenAILike(
        model=model, api_base=f"{url}/v1", api_key=key, is_chat_model=True, is_function_calling_model=True
    )


def messages_of(question: str) -> Any:
    return [ChatMessage(role="user", content=question)]


def complete(*, url: str, key: str, model: str, question: str) -> Any:
    answer = connect(url, key, model).chat(messages_of(question))
    return {"text": answer.message.content, "was_cut": answer.raw.choices[0].finish_reason == "length"}


def stream(*, url: str, key: str, model: str, question: str) -> Any:
    text, reason = "", None
    for chunk in connect(url, key, model).stream_chat(messages_of(question)):
        text += chunk.delta or ""
        reason = chunk.raw.choices[0].finish_reason or reason
    return {"text": text, "was_cut": reason == "length"}


def loop(*, url: str, key: str, model: str, question: str, tool: str, result: str) -> Any:
    results: list[str] = []

    def measure(thing: str) -> str:
        assert thing
        results.append(result)
        return result

    async def run() -> None:
        tools: Any = [FunctionTool.from_defaults(measure, name=tool)]
        await FunctionAgent(tools=tools, llm=connect(url, key, model)).run(question, max_iterations=100)

    asyncio.run(run())
    return {"results": len(results)}


def structure(*, url: str, key: str, model: str, question: str, stream: bool) -> Any:
    llm = connect(url, key, model).as_structured_llm(Thing)
    *_, last = llm.stream_chat(messages_of(question)) if stream else [llm.chat(messages_of(question))]
    return last.raw.model_dump()
