"""Finds out what kind of engine an upstream is, from its own list of models; whatever it cannot tell is any kind."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx

from gateway.serving.fetched import json_of
from gateway.serving.profiles import ANY, LLAMACPP, OLLAMA, OPENAI, SGLANG, VLLM, Profile

WAIT_S = 3.0

MODELS_MOST = 16 * 2**20
"""Bytes of a list of models."""

BY_OWNER = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMACPP, "library": OLLAMA}
"""Who owns a model, as each engine writes it. OpenAI's own answer is copied by many, so its host tells."""


async def detected(url: str, key: str | None) -> Profile:
    """Return the kind of the upstream at ``url``. One that is not up yet is any kind."""
    if urlsplit(url).hostname == "api.openai.com":
        return OPENAI
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as client:
            request = client.build_request("GET", url.rstrip("/") + "/models", headers=headers)
            answer = await json_of(client, request, MODELS_MOST)
        return BY_OWNER.get(str(answer["data"][0]["owned_by"]), ANY)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, IndexError, TypeError):
        return ANY
