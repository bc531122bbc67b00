"""The journey of one call, from the caller's bytes to the settlement, each step in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from gateway.errors import (
    CallerError,
    CallerGone,
    HouseError,
    InvalidKey,
    MeteringUnavailable,
    ModelNotFound,
    ShuttingDown,
    TierChangeNotAllowed,
    TokencapError,
    UpstreamError,
    UpstreamRefused,
    UpstreamSilent,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.holds.admission import Admission
from gateway.holds.hold import Hold, ReservationRequest, Settled
from gateway.holds.idempotency_claims import IdempotencyClaims, Seal, key_digest
from gateway.holds.keeper import Keeper
from gateway.holds.store.threads import Threads
from gateway.metrics.counters import Counters
from gateway.metrics.definitions import DROPPED_FIELDS
from gateway.serving.call import ANSWERED, Call
from gateway.serving.caller.api_key import Key, key_of
from gateway.serving.caller.body_intake import BodyIntake
from gateway.serving.caller.exchange import Exchange
from gateway.serving.caller.headers import NAMED_WHERE_DROPPED, allowed, dropped_header, length_header, passed_headers
from gateway.serving.caller.json_body import Body
from gateway.serving.caller.query import OF_CALLS, check_head
from gateway.serving.conversation import CONVERSATION, ConversationFinder
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.answers.thread_digests import of_session
from gateway.serving.dialects.base import Dialect
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.disconnects import Disconnects
from gateway.serving.fields.account_names import make_own, refuse_upstream_names
from gateway.serving.fields.field_filter import NAMED
from gateway.serving.fields.tools import Hosted
from gateway.serving.idempotency import IdempotentCall, name_of
from gateway.serving.tokenizer import SpotChecks, TokenCounter
from gateway.serving.upstream.client import Upstream
from gateway.serving.upstream.concurrency import ConcurrencyLimit
from gateway.serving.upstream.endpoint import Names
from gateway.serving.upstream.error_redaction import renamed
from gateway.serving.upstream.profiles import COUNT_TOKENS
from gateway.serving.upstream_limits import cap_reached, with_longest_limit

log = logging.getLogger("tokencap.serving")

BROKEN_OFF = "The upstream broke off its answer."
SETTLE_WAIT_S = 5.0
"""How long a caller's last bytes wait for the settlement while Redis is slow or unavailable."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What this gateway serves: its one model, the model's names for callers, and whether callers may choose a tier."""

    model: str
    names: Names
    customers_choose_tier: bool
    """Whether a customer may choose the tier of all its calls, by ``PUT /v1/account/tier``."""
    callers_choose_tier: bool
    """Whether a caller may choose the tier of one conversation, by ``X-Tokencap-Tier`` on its first call."""
    conversation_headers: tuple[bytes, ...]
    """Headers in which clients name their session: the first header present counts, after ``X-Conversation-Id``."""
    hosted: Hosted
    passed_headers: tuple[str, ...]
    """Request headers that the operator lets pass in addition to the dialect's."""
    call_deadline_s: float
    write_deadline_s: float
    """How long a caller may read nothing of an answer."""
    stream_keep_alive_s: float
    """The length of a silence after which a streaming caller is sent a sign of life. 0 means never."""
    passed_fields: frozenset[str]
    """Fields that the operator lets pass in addition to the fields that the engine knows."""
    kept_tokens_max: int
    """The most input tokens that are held for the part of a conversation that the upstream keeps."""
    model_tokens_max: int | None = None
    """The length of the upstream's model, where the upstream reports it. The upstream refuses a limit above it."""


class Journey:
    """Serves calls of one dialect."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        admission: Admission,
        keeper: Keeper,
        threads: Threads,
        claims: IdempotencyClaims,
        intake: BodyIntake,
        concurrency: ConcurrencyLimit,
        upstream: Upstream,
        token_counter: TokenCounter,
        spots: SpotChecks,
        disconnects: Disconnects,
        rules: Rules,
        counters: Counters,
        monotonic: Callable[[], float],
    ) -> None:
        self.dialect = dialect
        self._admission = admission
        self._keeper = keeper
        self._conversation_finder = ConversationFinder(threads)
        self._idempotency_claims = claims
        self._intake = intake
        self._concurrency = concurrency
        self._upstream = upstream
        self._token_counter = token_counter
        self._spots = spots
        self._disconnects = disconnects
        self._rules = rules
        self._header_names = allowed(dialect.endpoint, rules.passed_headers)
        self._checked_headers = frozenset(name.encode() for name in (*self._header_names, *NAMED_WHERE_DROPPED))
        self._counters = counters
        self._monotonic = monotonic

    async def serve(self, exchange: Exchange) -> None:
        """Serve one call: read, reserve, forward, relay up to the grant, settle.

        Raises:
            CallerError, HouseError: the call was not admitted; nothing is held and nothing reached the upstream.
        """
        key = await key_of(exchange, self._admission.bucket_of_key)
        customer = await self._admission.customer_of(key.bucket, key.digest)
        confirm = partial(self._admission.confirm, key.bucket, key.digest)
        try:
            check_head(exchange, OF_CALLS)
            raw = await self._intake.take(exchange, customer, confirm)
            body = await self._intake.read(raw, exchange, customer)
            dropped = self._rules.hosted.leave_out(body, self._rules.names)
            request = self.dialect.read(body, len(raw))
            refuse_upstream_names(body, self._rules.passed_fields)
            request.dropped = dropped + request.dropped
            if exchange.has_any_header(self._checked_headers):
                request.headers, withheld = passed_headers(exchange.header, self._header_names)
                request.dropped += withheld
            reservation_request = await self._reservation_request(exchange, key, request)
            name = name_of(exchange)
            idempotent = None if name is None else await self._claim(key, reservation_request, customer, name, raw)
        except (CallerGone, InvalidKey):
            raise
        except CallerError:
            await confirm()  # a caller with an unknown key gets 401 and learns nothing else
            raise
        if idempotent is not None and idempotent.stored_answer is not None:
            await confirm()
            await idempotent.replay(exchange)
            return
        exchange.records = idempotent is not None
        hold = await self._reserve(reservation_request, customer, idempotent)
        del raw  # a prompt may be large, and the answer may take a long time

        live = self._keeper.take(hold, idempotent.once if idempotent else None)
        call = Call(live, request, key, self._disconnects, self._monotonic)
        call.is_checked = self._spots.picks()
        finish, problem = await self._run(call, exchange, body, to_its_end=idempotent is not None)
        if call.has_left:
            finish = "disconnect"
        if self._token_counter.can_count and not isinstance(problem, ShuttingDown):
            with suppress(asyncio.CancelledError):  # the server stops waiting: the gateway's own count is used
                await call.count_missing(self._token_counter)
        outcome, once = call.outcome(finish, problem), None
        if idempotent is not None and finish in ANSWERED:
            once = idempotent.to_keep(call, exchange.recorded)
            call.is_kept = True
        settling = self._keeper.settle(call.live, outcome, once)
        if call.is_checked:
            call.check(self._spots)
        if finish != "disconnect":
            is_stopping = isinstance(problem, ShuttingDown)
            settled = None if is_stopping else await exchange.in_time(settling, SETTLE_WAIT_S)
            await self._end(call, exchange, settled, problem)

    async def _claim(
        self, key: Key, request: ReservationRequest, customer: str, idempotency_key: str, raw: bytes
    ) -> IdempotentCall:
        """Claim the call's Idempotency-Key."""
        digest = key_digest(self.dialect.endpoint, idempotency_key)
        seal = Seal.of(key.text, digest)
        body = seal.body(raw)
        stored_answer = await self._idempotency_claims.claim(request.bucket, customer, digest, body, request.id)
        return IdempotentCall(digest, seal, body, stored_answer)

    async def _reserve(self, request: ReservationRequest, customer: str, idempotent: IdempotentCall | None) -> Hold:
        """Reserve the call's tokens; record a refusal for the customer, and free the Idempotency-Key."""
        try:
            return await self._admission.reserve(request, self._keeper.doubt)
        except TokencapError as error:
            await self._admission.note_refusal(request, customer, error)
            if idempotent is not None:
                await self._idempotency_claims.free(request.bucket, customer, idempotent.digest, request.id)
            raise

    async def _reservation_request(self, exchange: Exchange, key: Key, request: Parameters) -> ReservationRequest:
        """Return the call's reservation request, with the conversation that the call belongs to."""
        if request.model not in self._rules.names:
            raise ModelNotFound(f"The model {request.model[:64]!r} is not served here.", param="model")
        tier = exchange.header(b"x-tokencap-tier")
        if tier is not None and not self._rules.callers_choose_tier:
            raise TierChangeNotAllowed("A tier cannot be chosen per conversation here.", param="X-Tokencap-Tier")
        conversation = None
        conversation_id = exchange.header(b"x-conversation-id")
        session = None if conversation_id is not None else self._session(exchange, key)
        if conversation_id is not None or session is not None or request.may_name_conversation():
            conversation = await self._conversation_finder.conversation(conversation_id, session, key, request)
        client_request_id = exchange.header(b"x-request-id")
        bound, estimate = await self._conversation_finder.input_of(
            request, key, conversation, kept_most=self._rules.kept_tokens_max, model_most=self._rules.model_tokens_max
        )
        return ReservationRequest(
            id=exchange.request_id,
            bucket=key.bucket,
            key_digest=key.digest,
            conversation=conversation or exchange.request_id,
            endpoint=self.dialect.endpoint,
            model=request.model,
            stream=request.stream,
            choices=request.choices,
            requested_tokens=request.requested_tokens,
            input_bound=bound,
            input_estimate=estimate,
            tier_chosen=tier,
            client_request_id=client_request_id[:200] if client_request_id else None,
            generates=request.generates,
            end_user=request.end_user,
            is_count=self.dialect.endpoint == COUNT_TOKENS,
            model_tokens_max=self._rules.model_tokens_max,
        )

    def _session(self, exchange: Exchange, key: Key) -> str | None:
        """Return the conversation id of the session that a client's headers name, or None where they name none."""
        for name in self._rules.conversation_headers:
            if session := exchange.header(name):
                return session if CONVERSATION.fullmatch(session) else of_session(session, key.secret)
        return None

    async def _run(
        self, call: Call, exchange: Exchange, body: Body, *, to_its_end: bool
    ) -> tuple[str, TokencapError | None]:
        """Forward an admitted call and relay its answer; return how the call ended, and its error, if any.

        A call that goes on ``to_its_end`` continues when its caller leaves; for other calls ``Disconnects`` decides.
        """
        try:
            async with exchange.attended(
                self._rules.call_deadline_s, to_its_end=to_its_end, on_disconnect=call.note_disconnect
            ):
                await self._relay(call, exchange, body)
            return call.finish(), None
        except CallerGone:
            return "disconnect", None
        except TimeoutError:
            return "upstream_error", UpstreamTimeout("The answer took too long.")
        except asyncio.CancelledError:
            return "shutdown", ShuttingDown()  # the server has waited for ``shutdown_s``; only the settlement is left
        except HouseError as error:
            return "shutdown", error
        except UpstreamError as error:
            return "upstream_error", self._caller_error(error, call)
        except TokencapError as error:
            return "upstream_error", error
        except Exception:
            log.exception("call %s failed", call.live.hold.id)
            return "shutdown", HouseError("Something went wrong on our side; the answer ends here.")
        finally:
            call.end()

    def _caller_error(self, error: UpstreamError, call: Call) -> TokencapError:
        """Return an upstream's error as the caller may see it."""
        translated = self._upstream.redacted(error)
        translated.message = renamed(translated.message, self._rules.model, call.request.model)
        return (
            cap_reached(translated, call.request, call.live.hold)
            if isinstance(translated, UpstreamRefused)
            else translated
        )

    async def _relay(self, call: Call, exchange: Exchange, body: Body) -> None:
        """Send the request upstream and relay the answer, counted and cut; return when the answer is over."""
        hold = call.live.hold
        async with (
            self._concurrency.place(hold.facts.customer),
            self._upstream.request(
                self.dialect.path,
                self._forwarded(call, exchange, body),
                hold.facts.id,
                {**self.dialect.headers, **call.request.headers},
                comes_whole=call.request.comes_whole,
                amend=None if hold.bound_by == "caller_limit" else with_longest_limit,
                sent=call.note_sent,
            ) as answer,
        ):
            reading = call.begin(self.dialect.reading(call.request, grant=hold.grant))
            if self._token_counter.can_count or call.is_checked:
                reading.remember_texts()
            if call.request.stream:
                await exchange.start(200, call.headers, call.content_type)
                exchange.keep_awake(self.dialect.keep_alive, self._rules.stream_keep_alive_s)
            if not await answer.is_stream():
                complete = await answer.whole()
                call.raw = complete.raw
                await self._pass_on(call, exchange, reading.feed_whole(complete.parsed))
                return
            problem: UpstreamError | None = None
            try:
                while not await answer.pour(partial(self._take, call, exchange, reading)):
                    await self._pass_on(call, exchange)
                    if reading.is_over():
                        return
                    if reading.failure is not None:
                        break
            except UpstreamError as error:
                problem = error
            await self._pass_on(call, exchange, reading.close())
            if not reading.is_over():
                missing_end = UpstreamSilent() if reading.is_silent else UpstreamUnavailable(BROKEN_OFF)
                raise reading.failure or problem or missing_end

    def _forwarded(self, call: Call, exchange: Exchange, body: Body) -> bytes:
        """Return the request for the upstream; keep only the text of the body that a tokenizer counts later."""
        if self._token_counter.can_count:
            call.prompt = self.dialect.prompt(body)
        make_own(body, call.live.hold.facts.customer)
        forwarded = self.dialect.forward(body, call.request, grant=call.live.hold.grant, model=self._rules.model)
        for name in call.request.dropped:
            self._counters.add(DROPPED_FIELDS, name if name in NAMED else "other")
        body.clear()
        exchange.release_body()
        return forwarded

    def _take(self, call: Call, exchange: Exchange, reading: Reading, piece: bytes) -> bool:
        """Count a piece of an answer and relay it in the same turn; return whether more can be relayed at once."""
        shown = reading.feed(piece)
        if call.has_left:
            return not reading.is_over() and reading.failure is None
        call.note_progress()
        if self._keeper.is_overdue() or call.live.is_lost:
            exchange.keep(shown)
            return False
        return exchange.write_now(shown) and not reading.is_over() and reading.failure is None

    async def _pass_on(self, call: Call, exchange: Exchange, shown: bytes = b"") -> None:
        """Relay the kept bytes and ``shown`` once this worker may relay, as fast as the caller reads."""
        if call.has_left:
            return
        if (self._keeper.is_overdue() or call.live.is_lost) and not await self._keeper.catches_up(call.live):
            raise MeteringUnavailable("This worker lost touch with its books and stopped the answer.")
        call.note_progress()
        if exchange.keep(shown):
            await exchange.flush()

    async def _end(
        self, call: Call, exchange: Exchange, settled: Settled | None, problem: TokencapError | None
    ) -> None:
        """Send the caller the last bytes, or the error."""
        if problem is not None and exchange.answers:
            refusal = self.dialect.refusal(problem, exchange.request_id)
            dropped = [(name.decode(), names.decode()) for name, names in dropped_header(call.request.dropped)]
            await exchange.reply(problem.status, refusal, [*problem.headers.items(), *dropped])
        elif problem is not None:
            last_event = b"" if call.reading is None else call.reading.failed(problem)
            await exchange.end(last_event or self.dialect.broken_off(problem, exchange.request_id))
        else:
            headers, last = call.last(settled)
            if exchange.answers:
                await exchange.start(200, [*headers, length_header(last)], call.content_type)
            await exchange.end(last)
