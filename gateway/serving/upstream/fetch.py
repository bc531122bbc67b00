"""Small questions to the upstream beside its calls, and answers that are never longer than they may be."""

from __future__ import annotations

from typing import Any

import httpx

from gateway.serving.json_codec import loads


async def json_of(client: httpx.AsyncClient, request: httpx.Request, most: int) -> Any:
    """Send a request and return the JSON of its answer.

    Raises:
        httpx.HTTPError: there is no good answer.
        ValueError: it is no JSON, or has more than ``most`` bytes.
    """
    request.headers["accept-encoding"] = "identity"
    answer = await client.send(request, stream=True)
    try:
        answer.raise_for_status()
        raw = bytearray()
        async for chunk in answer.aiter_raw():
            raw += chunk
            if len(raw) > most:
                raise ValueError("the answer is too long")
    finally:
        await answer.aclose()
    return loads(bytes(raw))
