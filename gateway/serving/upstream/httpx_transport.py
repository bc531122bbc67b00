"""Sends requests to the upstream through an HTTP proxy, by httpx, which costs more CPU than the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from gateway.errors import UpstreamTimeout, UpstreamUnavailable
from gateway.serving.upstream.endpoint import Endpoint
from gateway.serving.upstream.transport import OF_ALL, Sent, Sink, ignore_sent

CONNECT_S = 5.0


class ProxiedReply:
    """One reply of httpx."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self._response = response
        self._source = aiter(response.aiter_raw())

    def header(self, name: str) -> str | None:
        value: str | None = self._response.headers.get(name)
        return value

    async def chunk(self, patience_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(patience_s):
                return await anext(self._source, None)
        except TimeoutError as error:
            raise UpstreamTimeout("The upstream stopped sending.") from error
        except httpx.HTTPError as error:
            raise UpstreamUnavailable("The upstream broke off its answer.") from error

    async def pour(self, sink: Sink, patience_s: float, idle_s: float) -> bool:
        while (piece := await self.chunk(patience_s)) is not None:
            patience_s = idle_s
            if not sink(piece):
                return False
        return True

    async def aclose(self) -> None:
        await self._response.aclose()


class Proxied:
    """httpx with the same interface as our own pool."""

    def __init__(self, endpoint: Endpoint, proxy: str | None) -> None:
        # The concurrency limit decides how many calls run; the pool must not be a second queue.
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=1024)
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        self._endpoint = endpoint
        self._client = httpx.AsyncClient(
            headers={**OF_ALL, **endpoint.headers}, limits=unlimited, timeout=timeout, proxy=proxy, trust_env=False
        )

    async def post(
        self,
        path: str,
        body: bytes,
        request_id: str,
        more: Mapping[str, str],
        patience_s: float,
        sent: Sent = ignore_sent,
    ) -> ProxiedReply:
        headers = {name: value for name, value in more.items() if name not in self._endpoint.headers}
        headers["x-request-id"] = request_id
        request = self._client.build_request("POST", self._endpoint.at(path), content=body, headers=headers)
        sent()  # a proxy accepts the connection at once, whatever it can reach
        try:
            async with asyncio.timeout(patience_s):
                return ProxiedReply(await self._client.send(request, stream=True))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UpstreamTimeout("The upstream did not answer in time.") from error
        except httpx.HTTPError as error:
            raise UpstreamUnavailable("The upstream cannot be reached.") from error

    async def aclose(self) -> None:
        await self._client.aclose()
