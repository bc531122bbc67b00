"""Pydantic AI on ``openai`` and on ``anthropic``: the agent's loop is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent, Tool
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.run import AgentRunResult
from pydantic_ai.usage import UsageLimits

from tests.conformance.client import MODEL, QUESTION, RESULT, TOOL, TOOL_SAYS, Answer, Refused, Where


@contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except ModelHTTPError as error:
        body: Any = error.body
        raise Refused("ModelHTTPError", error.status_code, body.get("error", body)["code"]) from error


class Client:
    exceptions = dict.fromkeys((401, 404, 429), "ModelHTTPError")

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        with refusals():
            run = self._run(where, model)
        return self._answer(run.output, run.all_messages()[-1])

    def stream(self, where: Where) -> Answer:
        async def streamed() -> Answer:
            async with self._agent(where, MODEL) as agent, agent.run_stream(QUESTION) as run:
                text = "".join([piece async for piece in run.stream_text(delta=True)])
                return self._answer(text, run.all_messages()[-1])

        with refusals():
            return asyncio.run(streamed())

    def loop(self, where: Where) -> int:
        results: list[str] = []

        def measure(simulated: bool) -> str:
            assert simulated
            results.append(RESULT)
            return RESULT

        tool: Any = Tool(measure, name=TOOL, description=TOOL_SAYS)
        self._run(where, MODEL, tool, usage_limits=UsageLimits(request_limit=100))
        return len(results)

    def _run(self, where: Where, name: str, *tools: Any, **options: Any) -> AgentRunResult[str]:
        """Run the agent, then close its event loop and connections: its own ``run_sync`` leaves both open."""

        async def run() -> AgentRunResult[str]:
            async with self._agent(where, name, *tools) as agent:
                return await agent.run(QUESTION, **options)

        return asyncio.run(run())

    @asynccontextmanager
    async def _agent(self, where: Where, name: str, *tools: Any) -> AsyncIterator[Agent[None, str]]:
        model: Any
        if self.endpoint == "/v1/messages":
            async with AsyncAnthropic(api_key=where.key, base_url=where.url) as anthropic:
                model = AnthropicModel(name, provider=AnthropicProvider(anthropic_client=anthropic))
                yield Agent(model, tools=tools)
        else:
            async with AsyncOpenAI(api_key=where.key, base_url=f"{where.url}/v1") as openai:
                model = OpenAIChatModel(name, provider=OpenAIProvider(openai_client=openai))
                yield Agent(model, tools=tools)

    @staticmethod
    def _answer(text: str, last: Any) -> Answer:
        assert isinstance(last, ModelResponse)
        return Answer(text, last.finish_reason == "length")
