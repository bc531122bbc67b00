"""The journey of a call in this process, with a scripted upstream: no server, no Redis, no waiting."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.deadlines import Deadlines
from gateway.errors import UpstreamUnavailable
from gateway.holds.hold import Facts, Hold, Outcome, ReservationRequest, Settled
from gateway.holds.keeper import Live
from gateway.metrics.counters import Counters
from gateway.serving.caller.body_intake import BodyIntake
from gateway.serving.caller.exchange import Exchange
from gateway.serving.dialects.registry import dialects
from gateway.serving.disconnects import Disconnects, GenerationSpeed, Manners, Places
from gateway.serving.journey import Journey
from gateway.serving.tokenizer import SpotChecks, TokenCounter
from gateway.serving.upstream.client import Upstream
from gateway.serving.upstream.concurrency import ConcurrencyLimit
from gateway.serving.upstream.profiles import ANY, Profile
from gateway.serving.upstream.transport import Sent, Sink, ignore_sent
from tests.plain_rules import RULES

KEY = b"tc-ab-" + b"x" * 40
GRANT = 10_000


@dataclass(frozen=True)
class UpstreamAnswer:
    """The upstream's answer to one call."""

    pieces: tuple[bytes, ...]
    headers: Mapping[str, str]
    status: int = 200
    is_whole: bool = True
    """Whether the connection lasts until the end."""


@dataclass(frozen=True)
class CallResult:
    """The result of one call."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    hold: Hold
    outcome: Outcome

    @property
    def is_stream(self) -> bool:
        return self.headers[b"content-type"].startswith(b"text/event-stream")


class _Reply:
    def __init__(self, answer: UpstreamAnswer) -> None:
        self.status = answer.status
        self._answer = answer
        self._left = list(reversed(answer.pieces))

    def header(self, name: str) -> str | None:
        return self._answer.headers.get(name)

    async def chunk(self, patience_s: float) -> bytes | None:
        if self._left:
            return self._left.pop()
        if not self._answer.is_whole:
            raise UpstreamUnavailable("The upstream broke off its answer.")
        return None

    async def pour(self, sink: Sink, patience_s: float, idle_s: float) -> bool:
        while (piece := await self.chunk(patience_s)) is not None:
            if not sink(piece):
                return False
        return True

    async def aclose(self) -> None:
        pass


class _Transport:
    def __init__(self) -> None:
        self.answer: Callable[[bytes], UpstreamAnswer] | None = None

    async def post(
        self,
        path: str,
        body: bytes,
        request_id: str,
        more: Mapping[str, str],
        patience_s: float,
        sent: Sent = ignore_sent,
    ) -> _Reply:
        assert self.answer is not None
        sent()
        return _Reply(self.answer(body))

    async def aclose(self) -> None:
        pass


class _Books:
    """The admission, keeper, threads and claims of a journey: grants every call, and remembers its hold and outcome."""

    def __init__(self) -> None:
        self.most = GRANT
        self.hold: Hold | None = None
        self.outcome: Outcome | None = None

    def is_overdue(self) -> bool:
        return False

    async def bucket_of_key(self, digest: str) -> str:
        return "ab"

    async def customer_of(self, bucket: str, digest: str) -> str:
        return "cus_1"

    async def confirm(self, bucket: str, digest: str) -> None:
        pass

    async def conversation(self, bucket: str, digest: str, led_by: list[str]) -> str | None:
        return None

    async def reserve(self, request: ReservationRequest, in_doubt: Callable[[Hold], None]) -> Hold:
        grant = min(request.requested_tokens or self.most, self.most)
        self.hold = Hold(
            _facts(request),
            1,
            grant,
            "caller_limit" if grant == request.requested_tokens else "cap",
            0,
            None,
            None,
            1,
            False,
            0,
        )
        return self.hold

    def doubt(self, hold: Hold) -> None:
        pass

    def take(self, hold: Hold, once: object = None) -> Live:
        return Live(hold, None)

    def settle(self, live: Live, outcome: Outcome, once: object = None) -> asyncio.Future[Settled | None]:
        self.outcome = replace(outcome)
        coming: asyncio.Future[Settled | None] = asyncio.get_running_loop().create_future()
        coming.set_result(Settled(0, None))
        return coming


def _facts(request: ReservationRequest) -> Facts:
    return Facts(
        id=request.id,
        bucket=request.bucket,
        customer="cus_1",
        key_id="key_1",
        conversation=request.conversation,
        tier="open",
        tier_chosen=None,
        menu_version="1",
        endpoint=request.endpoint,
        model=request.model,
        stream=request.stream,
        choices=request.choices,
        requested_tokens=request.requested_tokens,
        client_request_id=None,
        currency="USD",
        price_nanousd=0,
        included_conversations=0,
        input_nanousd_per_mtok=0,
        output_nanousd_per_mtok=0,
        input_bound=request.input_bound,
        input_estimate=request.input_estimate,
        conversation_tokens_max=GRANT,
        period_start=0,
        period_end=1,
    )


class Alone:
    """A house with one caller, whose upstream is asked as the caller asks, or always for a stream."""

    def __init__(self, profile: Profile = ANY, *, always_streams: bool = False) -> None:
        self._transport, self._books, self._deadlines = _Transport(), _Books(), Deadlines()
        books: Any = self._books
        self._journeys = {
            dialect.endpoint: Journey(
                dialect,
                admission=books,
                keeper=books,
                threads=books,
                claims=books,
                intake=BodyIntake(16 * 2**20, time.perf_counter),
                concurrency=ConcurrencyLimit(None, wait_s=1),
                upstream=Upstream(self._transport, first_token_s=60, idle_s=60, whole_s=600),
                token_counter=TokenCounter(),
                rules=RULES,
                counters=Counters(),
                spots=SpotChecks(TokenCounter(), share=0, counters=Counters(), chance=lambda: 1.0),
                disconnects=Disconnects(profile, Manners(0, None), Places(None), GenerationSpeed(), Counters()),
                monotonic=time.monotonic,
            )
            for dialect in dialects(replace(profile, always_streams=always_streams))
        }

    async def call(
        self,
        endpoint: str,
        request: dict[str, Any],
        answer: UpstreamAnswer | Callable[[bytes], UpstreamAnswer],
        *,
        stream: bool,
        most: int = GRANT,
    ) -> CallResult:
        """Return the result of a call with this upstream answer, and with ``most`` tokens for each choice.

        A callable ``answer`` makes the upstream's answer from the body that the upstream receives.
        """
        body: dict[str, Any] = {"model": "aligned-1", **request, "stream": stream}
        if stream and endpoint.endswith("completions"):
            body["stream_options"] = {"include_usage": True}
        raw = json.dumps(body).encode()
        scope = {
            "method": "POST",
            "path": endpoint,
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer " + KEY), (b"content-length", b"%d" % len(raw))],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": raw}

        async def send(message: Any) -> None:
            sent.append(message)

        self._transport.answer = (lambda body: answer) if isinstance(answer, UpstreamAnswer) else answer
        self._books.most, self._books.outcome = most, None
        with Exchange(scope, receive, send, "req_1", self._deadlines, 600) as exchange:
            await self._journeys[endpoint].serve(exchange)
        assert self._books.hold is not None and self._books.outcome is not None
        head, *rest = sent
        answer = b"".join(message["body"] for message in rest)
        return CallResult(head["status"], dict(head["headers"]), answer, self._books.hold, self._books.outcome)
