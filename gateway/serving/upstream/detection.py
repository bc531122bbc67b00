"""Detects an upstream's engine and the length of its model, from its list of models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from gateway.serving.meter import count
from gateway.serving.upstream.endpoint import Endpoint, json_of
from gateway.serving.upstream.profiles import ANY, LLAMACPP, OLLAMA, OPENAI, SGLANG, VLLM, Profile

WAIT_S = 3.0
PAUSE_S, PAUSE_MOST_S = 1.0, 15.0
"""The first and the longest pause before an upstream that did not answer is asked again."""

MODELS_MOST = 16 * 2**20
"""The most bytes of a list of models."""

BY_OWNER = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMACPP, "library": OLLAMA}
"""The engines by the owner of a model in their lists. Many upstreams copy OpenAI's, so OpenAI is known by its host."""

LENGTHS = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx")
"""Names of a model's length in the model lists of vLLM and SGLang, OpenRouter, Groq, Mistral and llama.cpp."""

BUSY = 429

log = logging.getLogger("tokencap.serving")


@dataclass(frozen=True, slots=True)
class Engine:
    """The kind and the model's length of an upstream, as detected."""

    profile: Profile = ANY
    model_tokens_max: int | None = None
    """How many tokens a prompt and its answer may have together, where the upstream reports it."""

    def __str__(self) -> str:
        length = "of unknown length" if self.model_tokens_max is None else f"{self.model_tokens_max:,} tokens long"
        return f"profile {self.profile.name}, model {length}"


async def detected(endpoint: Endpoint, model: str) -> Engine | None:
    """Return the upstream's engine, or None while the upstream does not answer."""
    if urlsplit(endpoint.url).hostname == "api.openai.com":
        return Engine(OPENAI)
    try:
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False, verify=endpoint.tls) as client:
            entry = _entry(await _get_json(client, endpoint.at("/models"), endpoint), model)
            profile = BY_OWNER.get(str(entry.get("owned_by")), ANY)
            length = _length(entry)
            if profile is LLAMACPP:
                with suppress(httpx.HTTPError, ValueError):  # it is llama.cpp even if its properties cannot be read
                    properties = await _get_json(client, endpoint.beside("/props"), endpoint)
                    length = _length(properties.get("default_generation_settings")) or length
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        return None if status >= 500 or status == BUSY else Engine()  # it answers, but has no list of models
    except (httpx.HTTPError, ValueError):
        return None
    except httpx.InvalidURL:
        return Engine()
    return Engine(profile, length)


async def _get_json(client: httpx.AsyncClient, url: str, endpoint: Endpoint) -> dict[str, Any]:
    answer = await json_of(client, client.build_request("GET", url, headers=dict(endpoint.headers)), MODELS_MOST)
    return answer if isinstance(answer, dict) else {}


def _entry(models: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the entry of the model in a list of models, or the first entry, or an empty entry."""
    data = models.get("data")
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    return next((entry for entry in entries if entry.get("id") == model), entries[0] if entries else {})


def _length(fields: Any) -> int | None:
    if not isinstance(fields, dict):
        return None
    return next((tokens for name in LENGTHS if (tokens := count(fields.get(name)))), None)


async def keep_asking(endpoint: Endpoint, model: str, report: Callable[[Engine], None]) -> None:
    """Ask an upstream until it answers, then report its engine. Engines may take minutes to load."""
    pause_s = PAUSE_S
    while (engine := await detected(endpoint, model)) is None:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, PAUSE_MOST_S)
    report(engine)
