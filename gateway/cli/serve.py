"""``tokencap serve``: the gateway on this machine, all its processes, until it is stopped."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from gateway.catalog.admin_tokens import ensure_admin_token
from gateway.clock import now_ms
from gateway.ledger.book.watermark import refuse_at_start
from gateway.ledger.database import Database
from gateway.ledger.installation import tie
from gateway.redaction import log_to_stderr
from gateway.runtime import sockets
from gateway.runtime.children import Execute, execute
from gateway.runtime.data_directory import claimed
from gateway.runtime.installation_check import opened
from gateway.runtime.orphans import retire
from gateway.runtime.parent_death import stop_requested
from gateway.runtime.restarts import finished
from gateway.runtime.supervisor import LAW, SETTLE_S, Supervisor
from gateway.settings import PROGRAM, Settings, read_settings
from gateway.simulator.model_server import Law

app = typer.Typer()


@dataclass(frozen=True, slots=True)
class Serving:
    """A running gateway: its addresses, and the admin token if this start made it, which is shown only now."""

    url: str
    admin_url: str
    upstream_url: str
    admin_token: str | None


@app.command("serve")
def serve(
    context: typer.Context,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Processes that serve calls.")] = None,
) -> None:
    """Run the gateway until it is stopped. Settings come from the environment or tokencap.toml; SIGHUP reloads them."""
    log_to_stderr()
    asyncio.run(_serve(lambda: read_settings(workers=workers), context.obj or execute))


async def _serve(read: Callable[[], Settings], execute: Execute) -> None:
    stop, reload = asyncio.Event(), asyncio.Event()
    stop_signal = asyncio.create_task(stop_requested(None))
    stop_signal.add_done_callback(lambda _: stop.set())
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    await run_gateway(read(), stop, _announce, reload=Reload(reload, read), execute=execute)


@dataclass(frozen=True, slots=True)
class Reload:
    """When new workers replace the running workers, and where their settings come from."""

    asked: asyncio.Event
    read: Callable[[], Settings]


async def run_gateway(
    settings: Settings,
    stop: asyncio.Event,
    ready: Callable[[Serving], None],
    law: Law = LAW,
    reload: Reload | None = None,
    execute: Execute = execute,
) -> None:
    """Run one gateway until ``stop`` is set; call ``ready`` once it answers.

    Args:
        law: how the simulated model answers, where that is the upstream.
        reload: how the workers are replaced while the gateway runs; None never replaces them.
        execute: starts a process of the gateway.

    Raises:
        StartupError: the data directory or a port is in use, or a part of the gateway does not come up.
    """
    settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
    with ExitStack() as stack:
        data = stack.enter_context(claimed(settings.data_dir))
        if not await finished(retire(data, settings.shutdown_s + SETTLE_S), unless=stop.wait()):
            return
        listeners = [stack.enter_context(closing(listener)) for listener in _listen(settings)]
        database = stack.enter_context(closing(Database(settings.ledger_url)))
        identity, currency = opened(
            database,
            settings.data_dir,
            currency=settings.configured_currency,
            default_currency=settings.currency,
            new_id=lambda: f"ins_{secrets.token_hex(16)}",
            now_ms=now_ms(),
        )
        settings = settings.model_copy(update={"currency": currency})
        configured_token = settings.admin_token.get_secret_value() if settings.admin_token else None
        if configured_token is not None:
            ensure_admin_token(database, configured_token, now_ms())

        def say_ready() -> None:
            # A token is made only when it is shown: a start that failed earlier would never have shown it.
            token = None if configured_token is not None else ensure_admin_token(database, None, now_ms())
            urls = [sockets.url_of(listener) for listener in listeners]
            ready(Serving(urls[0], urls[-1], supervisor.upstream_url, token))

        addressed = _addressed(settings, listeners)
        read_again = reload.read if reload else None
        check = partial(_check_redis, database=database, identity=identity)
        supervisor = Supervisor(addressed, data, PROGRAM, listeners, _new_worker_id, law, read_again, check, execute)
        await supervisor.run(stop, say_ready, reload.asked if reload else None)


def _check_redis(redis_url: str, database: Database, identity: str) -> None:
    """Refuse a Redis of another installation, and a Redis that knows of records which the ledger lacks."""
    tie(redis_url, identity)
    refuse_at_start(redis_url, database)


def _listen(settings: Settings) -> list[socket.socket]:
    """Return the public socket, and the admin side's socket if an address of its own is set."""
    public = sockets.listen(settings.host, settings.port)
    if settings.admin_host is None and settings.admin_port is None:
        return [public]
    with ExitStack() as unless_both:
        unless_both.callback(public.close)
        port = sockets.port_of(public) if settings.admin_port is None else settings.admin_port
        admin = sockets.listen(settings.admin_host or settings.host, port)
        unless_both.pop_all()
    return [public, admin]


def _addressed(settings: Settings, listeners: list[socket.socket]) -> Settings:
    """Return the settings with the actual ports in place of 0."""
    ports = [sockets.port_of(listener) for listener in listeners]
    chosen: dict[str, object] = {"port": ports[0], "database_url": settings.ledger_url}
    if len(ports) > 1:
        chosen["admin_port"] = ports[1]
    return settings.model_copy(update=chosen)


def _new_worker_id() -> str:
    return f"w_{secrets.token_hex(8)}"


def _announce(serving: Serving) -> None:
    admin = f", its admin side on {serving.admin_url}" if serving.admin_url != serving.url else ""
    print(f"tokencap serves on {serving.url}{admin}", flush=True)
    if serving.admin_token is not None:
        print(f"Admin token, shown this once: {serving.admin_token}", flush=True)
