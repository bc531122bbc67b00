"""Whether a gateway answers yet."""

from __future__ import annotations

import asyncio

import httpx

from gateway.errors import StartupError

READY_S = 60.0
ANSWER_S = 2.0
PAUSE_S = 0.02


async def until_live(url: str) -> None:
    """Wait until ``/livez`` answers.

    Raises:
        StartupError: it does not for a minute.
    """
    # Nothing between this machine and itself: no proxy, no certificate.
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=ANSWER_S) as client:  # noqa: S501
        try:
            async with asyncio.timeout(READY_S):
                while True:
                    if await _is_live(client, url):
                        return
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError as error:
            raise StartupError(f"The gateway does not answer on {url}.") from error


async def _is_live(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/livez")).is_success
    except httpx.TransportError:
        return False
