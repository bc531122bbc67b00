"""OpenAI's Agents SDK, on Responses by default and on chat completions: the loop is its own."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Agent, ModelBehaviorError, OpenAIProvider, RunConfig, Runner, function_tool
from pydantic import BaseModel

run = asyncio.Runner().run
"""One runner for all calls: the SDK's clients share their connections, which belong to one event loop."""


class Thing(BaseModel):
    name: str
    length_m: float


def configured(url: str, key: str, mode: str) -> RunConfig:
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key=key, use_responses=mode == "responses")
    return RunConfig(model_provider=provider, tracing_disabled=True)


def complete(*, url: str, key: str, model: str, question: str, mode: str) -> Any:
    agent = Agent(name="agent", model=model)
    done = run(Runner.run(agent, question, run_config=configured(url, key, mode)))
    return {"text": done.final_output, "was_cut": done.raw_responses[-1].output[-1].status == "incomplete"}


def stream(*, url: str, key: str, model: str, question: str, mode: str) -> Any:
    return run(streamed(Agent(name="agent", model=model), question, configured(url, key, mode)))


async def streamed(agent: Any, question: str, config: RunConfig) -> Any:
    running, text = Runner.run_streamed(agent, question, run_config=config), ""
    try:
        async for event in running.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                text += event.data.delta
    except ModelBehaviorError as error:
        if "max_output_tokens" not in str(error):
            raise
        return {"text": text, "was_cut": True}
    return {"text": text, "was_cut": False}


def loop(*, url: str, key: str, model: str, question: str, mode: str, tool: str, result: str) -> Any:
    results: list[str] = []

    def measure(thing: str) -> str:
        assert thing
        results.append(result)
        return result

    agent = Agent(name="agent", model=model, tools=[function_tool(measure, name_override=tool)])
    run(Runner.run(agent, question, run_config=configured(url, key, mode), max_turns=100))
    return {"results": len(results)}


def structure(*, url: str, key: str, model: str, question: str, mode: str, stream: bool) -> Any:
    agent, config = Agent(name="agent", model=model, output_type=Thing), configured(url, key, mode)
    if not stream:
        return run(Runner.run(agent, question, run_config=config)).final_output.model_dump()
    return Thing.model_validate_json(run(streamed(agent, question, config))["text"]).model_dump()
