"""The one door to the model: asks it for an answer and turns every way it can fail into one of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.errors import (
    RouteNotFound,
    TokencapError,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)

ERROR_MOST = 64 * 2**10
"""Bytes of an upstream's error that are read."""

WHOLE_MOST = 64 * 2**20
"""Bytes of an answer that is not a stream."""

REFUSALS = frozenset({400, 404, 413, 422})
NO_ROUTE, NO_METHOD = 404, 405
UNKNOWN_PATHS = ("Invalid URL", "File Not Found")
"""How OpenAI and llama.cpp say that there is no such route; others say nothing, or not in the shape of an error."""

OVERLOADS = frozenset({429, 503, 529})


class Answer:
    """An answer that the upstream has begun: a 2xx head, and bytes to come."""

    def __init__(self, response: httpx.Response, first_token_s: float, idle_s: float) -> None:
        self._response = response
        self._first_token_s = first_token_s
        self._idle_s = idle_s
        self.is_stream = response.headers.get("content-type", "").startswith("text/event-stream")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come.

        Raises:
            UpstreamUnavailable: the connection broke.
            UpstreamTimeout: nothing came for too long.
        """
        source = aiter(self._response.aiter_raw())
        patience_s = self._first_token_s
        while True:
            try:
                async with asyncio.timeout(patience_s):
                    chunk = await anext(source, None)
            except TimeoutError as error:
                raise UpstreamTimeout("The upstream stopped sending.") from error
            except httpx.HTTPError as error:
                raise UpstreamUnavailable("The connection to the upstream broke.") from error
            if chunk is None:
                return
            patience_s = self._idle_s
            yield chunk

    async def whole(self) -> Any:
        """Return the JSON of an answer that is not a stream."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > WHOLE_MOST:
                raise UpstreamUnavailable("The upstream's answer is too long.")
            parts.append(chunk)
        try:
            return json.loads(b"".join(parts))
        except ValueError as error:
            raise UpstreamUnavailable("The upstream's answer is not JSON.") from error


class Upstream:
    """The model's endpoint."""

    def __init__(
        self, client: httpx.AsyncClient, url: str, key: str | None, *, first_token_s: float, idle_s: float
    ) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._first_token_s = first_token_s
        self._idle_s = idle_s
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    @asynccontextmanager
    async def ask(self, path: str, body: bytes, request_id: str, more: Mapping[str, str]) -> AsyncIterator[Answer]:
        """Open an answer; leaving the block closes it, and the connection with it where more was to come.

        ``more`` are headers of the dialect's own.

        Raises:
            UpstreamRefused: the request itself was refused; status, message and code are the upstream's.
            UpstreamUnavailable, UpstreamOverloaded, UpstreamTimeout: there is no answer to be had.
        """
        request = self._client.build_request(
            "POST", self._url + path, content=body, headers={**self._headers, **more, "x-request-id": request_id}
        )
        try:
            async with asyncio.timeout(self._first_token_s):
                response = await self._client.send(request, stream=True)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UpstreamTimeout("The upstream did not answer in time.") from error
        except httpx.HTTPError as error:
            raise UpstreamUnavailable("The upstream cannot be reached.") from error
        try:
            if not response.is_success:
                raise await _failure(response, path)
            yield Answer(response, self._first_token_s, self._idle_s)
        finally:
            await response.aclose()


async def _failure(response: httpx.Response, path: str) -> TokencapError:
    status = response.status_code
    if status in REFUSALS or status == NO_METHOD:
        message, code, param = _told(await _error_body(response))
        if status == NO_METHOD or (status == NO_ROUTE and (message or UNKNOWN_PATHS[0]).startswith(UNKNOWN_PATHS)):
            return RouteNotFound(f"The model's endpoint does not speak /v1{path}.")
        return UpstreamRefused(message or f"The upstream refused the request with {status}.", status, code, param)
    if status in OVERLOADS:
        retry_after = response.headers.get("retry-after", "1")
        whole = retry_after if retry_after.isdecimal() and retry_after != "0" else "1"
        return UpstreamOverloaded("The upstream is overloaded.", headers={"retry-after": whole})
    return UpstreamUnavailable("The upstream failed to answer.")


async def _error_body(response: httpx.Response) -> Any:
    raw = b""
    try:
        async with asyncio.timeout(5):
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > ERROR_MOST:
                    break
        return json.loads(raw)
    except (ValueError, TimeoutError, httpx.HTTPError):
        return None


def _told(body: Any) -> tuple[str | None, str | None, str | None]:
    """Return message, code and param from an error as OpenAI nests it or as others write it flat."""
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        return error[:2000], None, None
    if not isinstance(error, dict):
        return None, None, None
    message, code, param = (error.get(name) for name in ("message", "code", "param"))
    return (
        message[:2000] if isinstance(message, str) else None,
        code if isinstance(code, str) else None,
        param if isinstance(param, str) else None,
    )
