"""Puts a gateway together: the only file in which settings, clients and rooms meet."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import httpx
from fastapi import FastAPI

from gateway.admin.api.idempotency import Replies
from gateway.admin.api.routes import AdminServices
from gateway.admin.api.wrong_tokens import WrongTokens
from gateway.admin.customers.customers import Customers
from gateway.admin.customers.self_service import SelfService
from gateway.admin.records.metrics import Scrape
from gateway.admin.router import build_admin
from gateway.catalog.admin_tokens import AdminTokens
from gateway.catalog.projector import CatalogProjector
from gateway.clock import now_ms
from gateway.deadlines import Deadlines
from gateway.errors import MeteringUnavailable
from gateway.holds.admission import Admission, Lease
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.offer import HouseLimits
from gateway.holds.settlement import Settlements
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.clients import connect, connect_shared, translated
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.generation import Generation, generation_in, in_own_thread
from gateway.holds.store.projection import Projection
from gateway.holds.store.refusal_log import RefusalLog
from gateway.holds.store.threads import Threads
from gateway.holds.store.watermarks import Watermarks
from gateway.ledger.database import Database
from gateway.ledger.read.queries import lately_counted
from gateway.ledger.recovery.hot_state import bounds_of
from gateway.ledger.recovery.recovery import Recovery
from gateway.metrics.counters import Counters, Sheet, count_records
from gateway.metrics.definitions import WRONG_TOKENS
from gateway.serving.account import Accounts
from gateway.serving.caller.body_intake import BodyIntake
from gateway.serving.caller.cors import Cors
from gateway.serving.caller.exchange import Receive, Scope, Send
from gateway.serving.configuration import effective_profile, endpoint_of, key_of, rules_for, rules_of
from gateway.serving.dialects.registry import dialects
from gateway.serving.disconnects import Disconnects, GenerationSpeed, Manners, Places
from gateway.serving.health import Health
from gateway.serving.journey import Journey
from gateway.serving.routes import CustomerRoutes
from gateway.serving.tokenizer import SpotChecks, TokenCounter, Tokenizer, UpstreamTokenizer, read_tokenizer
from gateway.serving.upstream.client import Upstream
from gateway.serving.upstream.concurrency import ConcurrencyLimit
from gateway.serving.upstream.detection import Engine, detected, keep_asking
from gateway.serving.upstream.endpoint import Endpoint, Names
from gateway.serving.upstream.error_redaction import House
from gateway.serving.upstream.httpx_transport import Proxied
from gateway.serving.upstream.pool import Pool
from gateway.serving.upstream.profiles import EMBEDDINGS, ENDPOINTS, Profile
from gateway.serving.upstream.transport import Transport
from gateway.settings import Settings

START_S = 600.0
"""How long a start waits for a rebuild of the hot state; the process answers no probe meanwhile."""

SETTLE_S = 5.0
"""How long a stopping worker waits for the last settlements."""

IDS_AT_ONCE = 256
"""The number of call ids whose random bits are read from the system at once."""

LATEST = 1_000
"""The number of latest records from which a starting worker computes the model's pace."""

SECRET_LEAST = 16
"""The fewest characters of a value in the operator's headers that counts as a secret."""

COUNTED_S = 1.0
"""How old a worker's counts may be when another worker reports them."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """One worker's two apps, which are the same app unless the admin side has an address of its own."""

    public: FastAPI
    admin: FastAPI
    health: Health
    counters: Counters


class Gateway(FastAPI):
    """A FastAPI app whose customer routes are plain ASGI: FastAPI does not handle their requests."""

    serving: CustomerRoutes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            await self.serving(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def request_ids() -> Iterator[str]:
    """Yield ids of calls. Each has the time, so that ids sort by it, and 80 random bits."""
    while True:
        digits = os.urandom(10 * IDS_AT_ONCE).hex()
        for start in range(0, len(digits), 20):
            yield f"req_{now_ms():012x}{digits[start : start + 20]}"


def build(settings: Settings, worker_id: str) -> App:
    """Return one worker's apps. No connection is opened before the public app starts up."""
    database = Database(settings.ledger_url)
    blocking = connect(settings.redis_url)
    projection = Projection(blocking)
    counters = Counters()
    sheet = Sheet(settings.metrics_dir, worker_id, counters)
    recovery = Recovery(
        database,
        blocking,
        CatalogProjector(database, projection),
        bounds=bounds_of(settings),
        now_ms=now_ms,
        note=lambda records: count_records(counters, records),
    )
    services = AdminServices(
        database=database,
        projection=projection,
        redis=blocking,
        tokens=AdminTokens(database, time.monotonic),
        wrong_tokens=WrongTokens(
            database, now_ms=now_ms, monotonic=time.monotonic, count=lambda: counters.add(WRONG_TOKENS)
        ),
        now_ms=now_ms,
        random_bytes=os.urandom,
        settings=settings,
    )
    self_service = SelfService(services, Customers(services, Replies(database, now_ms)))
    health = Health()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(blocking.close)
            stack.callback(database.close)
            assert isinstance(app, Gateway)
            stack.callback(sheet.write)
            writing = asyncio.create_task(_keep_writing(sheet))
            stack.callback(writing.cancel)
            app.serving = await _serving(stack, settings, worker_id, database, recovery, self_service, health, counters)
            yield

    public = Gateway(title="tokencap", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    has_own_address = settings.admin_host is not None or settings.admin_port is not None
    admin = FastAPI(title="tokencap", docs_url=None, redoc_url=None) if has_own_address else public
    for application in (public, admin):
        application.router.redirect_slashes = False  # a path has one spelling
    build_admin(admin, services)
    scrape = Scrape(services, sheet)
    scrape.add_to(admin)
    health.add_to(admin, scrape.admit)
    if admin is not public:
        health.add_to(public)
    return App(public, admin, health, counters)


async def _keep_writing(sheet: Sheet) -> None:
    """Write the counters to the worker's sheet about once a second, until cancelled."""
    while True:
        try:
            await asyncio.to_thread(sheet.write)
        except Exception:
            log.exception("the counters cannot be written to the sheet; writing is tried again")
        await asyncio.sleep(COUNTED_S)


async def _serving(
    stack: AsyncExitStack,
    settings: Settings,
    worker_id: str,
    database: Database,
    recovery: Recovery,
    self_service: SelfService,
    health: Health,
    counters: Counters,
) -> CustomerRoutes:
    """Connect and start everything that serves calls; closing ``stack`` settles the in-flight calls and disconnects."""
    connection, deadlines = connect_shared(settings.redis_url, batches=settings.redis_batches), Deadlines()
    stack.push_async_callback(connection.aclose)

    cache = LookupCache(connection)
    generation = Generation(in_own_thread(stack, recovery.ensure), partial(generation_in, connection))
    lease = Lease(worker_id, int(settings.lease_s * 1000), int(settings.call_deadline_s * 1000))
    house = HouseLimits.of(settings)
    admission = _admission(stack, settings, connection, cache, generation, lease, house)
    claims = IdempotencyClaims(connection, lease.lease_ms)
    settlements = Settlements(connection, generation, lease, now_ms=now_ms, answers_bytes_max=settings.kept_answers_max)
    keeper = Keeper(settlements, claims, lease, counters, monotonic=time.monotonic)
    await _warm_up(connection, admission, generation)
    stack.callback(asyncio.create_task(keeper.run()).cancel)
    stack.push_async_callback(keeper.drain, SETTLE_S)
    endpoint, intake = endpoint_of(settings), BodyIntake(settings.body_max, time.perf_counter)
    journey = partial(
        Journey,
        admission=admission,
        keeper=keeper,
        threads=Threads(connection, cache, admission.in_force),
        claims=claims,
        intake=intake,
        concurrency=ConcurrencyLimit(settings.upstream_concurrency_max, wait_s=settings.upstream_queue_s),
        upstream=await _upstream(stack, settings, endpoint, deadlines),
        spots=_spots(settings, counters),
        counters=counters,
        monotonic=time.monotonic,
    )
    routes = CustomerRoutes(
        Accounts(connection, cache, house, now_ms, admission.in_force),
        self_service,
        intake,
        rules_of(settings),
        counters,
        deadlines,
        cors=Cors(settings.cors_origins) if settings.cors_origins else None,
        bucket_of_key=admission.bucket_of_key,
        names=Names(filter(None, (settings.model, *settings.model_aliases, settings.embedding_model))),
        new_id=partial(next, request_ids()),
        started_s=now_ms() // 1000,
    )
    client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, verify=endpoint.tls))
    serve_engine = partial(
        _serve_for, settings, client, health, routes, journey, await _disconnects(settings, database, counters)
    )
    await _recognise(stack, settings, endpoint, serve_engine)
    health.connection, health.generation = connection, generation
    return routes


def _admission(
    stack: AsyncExitStack,
    settings: Settings,
    connection: RedisConnection,
    cache: LookupCache,
    generation: Generation,
    lease: Lease,
    house: HouseLimits,
) -> Admission:
    """Return the admission, with the log in which it notes refusals for customers."""
    watermarks = Watermarks(settings.watermarks_file).numbers
    refusal_log = RefusalLog(connection, now_ms)
    stack.push_async_callback(refusal_log.flush)
    stack.callback(asyncio.create_task(refusal_log.run()).cancel)
    return Admission(
        connection,
        cache,
        generation,
        watermarks,
        lease=lease,
        house=house,
        currency=settings.currency,
        now_ms=now_ms,
        refused=refusal_log,
    )


def _serve_for(
    settings: Settings,
    client: httpx.AsyncClient,
    health: Health,
    routes: CustomerRoutes,
    journey: Callable[..., Journey],
    disconnects: Callable[[Profile], Disconnects],
    detected_engine: Engine,
) -> None:
    """Serve calls by the profile of the detected engine."""
    engine = effective_profile(detected_engine, settings)
    profile, rules = engine.profile, replace(rules_of(settings), model_tokens_max=engine.model_tokens_max)
    token_counter, absent = _token_counter(client, settings, profile), _absent(profile, settings)
    supported = dialects(profile)
    routes.serve(
        [
            journey(
                dialect,
                rules=rules_for(dialect, rules, settings),
                token_counter=token_counter,
                disconnects=disconnects(profile),
            )
            for dialect in supported
            if dialect.endpoint not in absent
        ],
        [(dialect, absent[dialect.endpoint]) for dialect in supported if dialect.endpoint in absent],
    )
    health.engine = str(engine)
    log.info("The model's endpoint: %s.", health.engine)


async def _recognise(
    stack: AsyncExitStack, settings: Settings, endpoint: Endpoint, report: Callable[[Engine], None]
) -> None:
    """Report the upstream's engine as detected now; if the upstream does not answer yet, report it again once it does."""
    engine = await detected(endpoint, settings.model)
    report(engine or Engine())
    if engine is None:
        log.warning("The model's endpoint does not answer yet; its engine is detected once it answers.")
        detection = asyncio.create_task(keep_asking(endpoint, settings.model, report))
        stack.callback(detection.cancel)


async def _disconnects(settings: Settings, database: Database, counters: Counters) -> Callable[[Profile], Disconnects]:
    """Return the factory of a profile's ``Disconnects``; the model's pace begins with the ledger's latest records."""
    pace = GenerationSpeed()
    with suppress(MeteringUnavailable):
        for tokens, seconds in await asyncio.to_thread(lately_counted, database, LATEST):
            pace.note(tokens, seconds)
    manners = Manners(settings.drain_s, settings.hangup_bills)
    return partial(
        Disconnects, manners=manners, places=Places(settings.upstream_concurrency_max), pace=pace, counters=counters
    )


async def _warm_up(connection: RedisConnection, admission: Admission, generation: Generation) -> None:
    """Read a cluster's map, Redis's clock and the generation before calls come, and many at once would need them."""
    with suppress(MeteringUnavailable):
        with translated():
            await connection.execute("PING")
        await admission.compare_clocks()
        await generation.learn(0, patience_s=START_S)


def _absent(profile: Profile, settings: Settings) -> dict[str, str]:
    """Return the routes that are not served, each with its reason."""
    absent = {route: f"The model's endpoint does not speak {route}." for route in ENDPOINTS - profile.speaks}
    if settings.embedding_model is None:
        absent[EMBEDDINGS] = "Embeddings are not served here: the operator has set no embedding model."
    return absent


def _spots(settings: Settings, counters: Counters) -> SpotChecks:
    """Return the spot checks, which count some answers again with the operator's tokenizer, if there is one."""
    token_counter = TokenCounter() if settings.tokenizer is None else TokenCounter(read_tokenizer(settings.tokenizer))
    return SpotChecks(token_counter, share=settings.recount_share, counters=counters, chance=random.random)


def _token_counter(client: httpx.AsyncClient, settings: Settings, profile: Profile) -> TokenCounter:
    """Return the available tokenizers: the upstream's own, then the operator's."""
    tokenizers: list[Tokenizer] = []
    if profile.tokenize_field is not None:
        endpoint, field = endpoint_of(settings), profile.tokenize_field
        tokenizers.append(UpstreamTokenizer(client, endpoint, model=settings.model, field=field))
    if settings.tokenizer is not None:
        tokenizers.append(read_tokenizer(settings.tokenizer))
    return TokenCounter(*tokenizers)


async def _upstream(stack: AsyncExitStack, settings: Settings, endpoint: Endpoint, deadlines: Deadlines) -> Upstream:
    if settings.upstream_proxy is not None:
        transport: Transport = Proxied(endpoint, settings.upstream_proxy)
    else:
        transport = Pool(endpoint, endpoint.tls, deadlines)
    stack.push_async_callback(transport.aclose)
    return Upstream(
        transport,
        first_token_s=settings.first_token_deadline_s,
        idle_s=settings.idle_deadline_s,
        whole_s=settings.call_deadline_s,
        house=House.of(
            (settings.upstream_url, settings.upstream_proxy),
            key_of(settings),
            *(value for value in settings.upstream_more_headers.values() if len(value) >= SECRET_LEAST),
        ),
    )
