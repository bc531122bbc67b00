"""The process that starts all others of a gateway, keeps them running, and stops them in the order that loses nothing.

In the order workers, bookkeeper, simulated model, Valkey, each process relies on the processes after it. So they start
in reverse order and stop in order: workers finish their calls, then the bookkeeper empties the streams into SQL.
A killed supervisor leaves the same order: through one pipe the workers notice that the supervisor is gone, through
another the bookkeeper and the simulated model notice that the workers are gone, too, and the bookkeeper stops Valkey.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio.subprocess import Process as ChildProcess
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, closing, suppress
from pathlib import Path
from typing import Any

import httpx

from gateway.errors import MeteringUnavailable, StartupError
from gateway.holds.store.clients import connect_shared
from gateway.runtime import sockets, valkey
from gateway.runtime.children import Children, Execute, execute
from gateway.runtime.data_directory import DataDir
from gateway.runtime.orphans import VALKEY
from gateway.runtime.parent_death import ParentPipe
from gateway.runtime.restarts import Restarted, finished
from gateway.settings import Settings
from gateway.simulator.model_server import Law

READY_S = 60.0
ANSWER_S = 2.0
PAUSE_S = 0.02


async def until_live(url: str) -> None:
    """Wait until ``/livez`` answers.

    Raises:
        StartupError: no answer within a minute.
    """
    # The connection stays on this machine: no proxy, no certificate.
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


SETTLE_S = 10.0
"""How long, after the time for running calls has ended, the calls that were cut off may still be settled."""
FLUSH_S = 60.0
SIMULATOR_S = 5.0
LAW = Law()
BEAT_S = 0.05
"""How often Redis is queried for a new worker's heartbeat."""

RELOADED = frozenset(
    {
        *("model", "model_aliases", "embedding_model", "upstream_url", "upstream_key", "upstream_proxy"),
        *("upstream_key_header", "upstream_headers", "stream_keep_alive_s", "cors_origins"),
        *("image_tokens_max", "audio_tokens_per_kb", "file_tokens_max", "kept_tokens_max"),
        *("upstream_profile", "upstream_dialects", "upstream_limit_fields", "passed_fields", "tokenizer"),
        *(
            "unknown_fields",
            "upstream_usage",
            "upstream_streams",
            "on_hangup",
            "drain_s",
            "recount_share",
            "hangup_bills",
            "passed_headers",
        ),
        *("first_token_deadline_s", "idle_deadline_s", "write_deadline_s", "upstream_concurrency_max"),
        *("upstream_queue_s", "answer_tokens_max", "grant_tokens_min", "self_selection", "mode", "metrics_token"),
        *("requests_per_minute", "concurrency_max", "kept_answers_max"),
        *("head_max", "head_deadline_s", "body_rate_min", "keep_alive_s"),
        *("connections_max", "connections_per_address_max"),
        *("adjustment_nanousd_max", "invoice_address", "invoice_tax_lines", "invoice_prefix", "notice_percents"),
        "log_level",
    }
)
"""Settings that only workers use, and that may change from the old workers to the new."""

log = logging.getLogger(__name__)


class Supervisor:
    """One gateway's processes on one machine.

    Args:
        settings: the children's settings; the addresses of the processes started here are filled in later.
        data: the data directory, claimed, with no process left running on it. The ended workers that it remembers are
            the first that are recorded in Redis.
        program: the command that starts this program; a subcommand and its options follow.
        listeners: the public socket, then the admin API's socket where it has its own.
        new_worker_id: a name that no worker has had before.
        law: how the simulated model answers, where the upstream is simulated.
        read_again: returns the settings as they are now, for workers that replace others.
        check: receives the URL of Redis once it is up, and raises StartupError where nothing may be started on it.
        execute: starts a process.
    """

    def __init__(
        self,
        settings: Settings,
        data: DataDir,
        program: Sequence[str],
        listeners: Sequence[socket.socket],
        new_worker_id: Callable[[], str],
        law: Law = LAW,
        read_again: Callable[[], Settings] | None = None,
        check: Callable[[str], None] = lambda _redis_url: None,
        execute: Execute = execute,
    ) -> None:
        self._settings = settings
        self._upstream = settings.upstream_url
        self._data = data
        self._program = tuple(program)
        self._listeners = tuple(listeners)
        self._new_worker_id = new_worker_id
        self._law = law
        self._read_again = read_again or (lambda: settings)
        self._check = check
        self._execute = execute
        self._started: list[Restarted] = []
        self._workers: list[Restarted] = []
        self._new_worker: Callable[[str], Restarted]
        self._bookkeeper: Restarted
        self._children: Children

    @property
    def upstream_url(self) -> str:
        """The model's URL; for the simulated model it is known once the gateway is ready."""
        return self._settings.upstream_url

    async def run(self, stop: asyncio.Event, ready: Callable[[], None], reload: asyncio.Event | None = None) -> None:
        """Start everything, call ``ready`` once the gateway answers, and stop everything after ``stop`` is set.

        Whenever ``reload`` is set, new workers replace those that run.

        Raises:
            StartupError: a process ended, or did not become ready, before the gateway was ready.
        """
        async with AsyncExitStack() as stack:
            if await finished(self._start(stack), unless=stop.wait()):
                ready()
                await finished(self._reload_when(reload or asyncio.Event()), unless=stop.wait())

    async def _reload_when(self, requested: asyncio.Event) -> None:
        while True:
            await requested.wait()
            requested.clear()
            try:
                await self._reload()
            except Exception:
                log.exception("Nothing more is reloaded: the workers that run stay.")

    async def _reload(self) -> None:
        """Replace each worker in turn; running workers finish their calls, and no caller is refused.

        First the ledger's tables and the bookkeeper are brought to the version that is installed now: this bookkeeper
        takes the records of older and newer workers. Where the settings cannot be read, the tables cannot be migrated
        or a new worker does not come up, the old workers stay.
        """
        try:
            settings = self._read_again()
        except StartupError as error:
            log.error("Nothing is reloaded: %s", error.message)
            return
        previous = self._settings
        # A simulated model starts only with the gateway.
        unchanged = {"upstream_url"} if "simulated" in (settings.upstream_url, self._upstream) else set()
        changed = {name: getattr(settings, name) for name in RELOADED - unchanged}
        self._settings = previous.model_copy(update=changed)
        if not await self._migrate():
            self._settings = previous
            return
        await self._bookkeeper.renew(FLUSH_S)
        for old in tuple(self._workers):
            new = self._new_worker(old.name)
            self._workers.append(new)
            if not await finished(new.is_up.wait(), unless=new.first_end()):
                log.error("Nothing more is reloaded: %s", await new.first_end())
                self._settings = previous
                await new.stop(0)
                self._workers.remove(new)
                return
            await old.stop(self._patience_s)
            self._workers.remove(old)
        log.info("New workers have taken the place of those before them.")

    async def _migrate(self) -> bool:
        """Have the program that is installed now migrate the ledger's tables; return whether it did."""
        command = [*self._program, "ledger", "migrate"]
        process = await self._children.start("migration", command, self._settings.to_environment())
        status = await process.wait()
        await self._children.note_end(process)
        if status:
            log.error("Nothing is reloaded: the ledger's tables could not be brought to the version that is installed.")
        return status == 0

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start all processes in reverse order; closing ``stack`` stops them in order."""
        self._data.forget_counts()
        valkey_socket = self._data.new_socket() if self._settings.redis_url == "embedded" else None
        if valkey_socket is not None:
            stack.callback(self._data.drop_socket, valkey_socket)
            self._settings = self._settings.model_copy(update={"redis_url": valkey.url_of(valkey_socket)})
        connection = connect_shared(self._settings.redis_url)
        stack.push_async_callback(connection.aclose)
        self._children = children = Children(self._data, valkey_socket, connection, self._execute)
        stack.callback(children.forget_socket)
        if valkey_socket is not None:
            await self._start_valkey(stack, children, valkey_socket)
        await asyncio.to_thread(self._check, self._settings.redis_url)
        stack.push_async_callback(
            _record_last_ends, children, asyncio.create_task(children.ended_workers.keep_recording())
        )
        workers = stack.enter_context(closing(ParentPipe()))
        answering = [self._listeners[0]]
        if self._settings.upstream_url == "simulated":
            answering.append(self._start_simulator(stack, children, workers))
        self._start_bookkeeper(stack, children, workers, valkey_socket)
        self._start_workers(stack, children, workers)
        stack.callback(self._listen_no_more)
        for listener in answering:
            await self._unless_child_ends(until_live(sockets.url_of(listener)))

    async def _start_valkey(self, stack: AsyncExitStack, children: Children, valkey_socket: Path) -> None:
        server = valkey.find_server(self._settings.valkey_server_bin)
        command = valkey.command(server, self._data.valkey, valkey_socket, self._settings.redis_memory_max)

        async def up(_: ChildProcess) -> None:
            await valkey.until_up(valkey_socket)

        restarted = Restarted(
            "Valkey", lambda: children.start(VALKEY, command, valkey.environment()), children.note_end, up
        )
        self._keep(stack, [restarted], valkey.STOP_S)
        await self._unless_child_ends(restarted.is_up.wait())

    def _start_simulator(self, stack: AsyncExitStack, children: Children, workers: ParentPipe) -> socket.socket:
        # The socket is the supervisor's, so that a restarted simulator keeps its address.
        listener = stack.enter_context(closing(sockets.listen("127.0.0.1", 0)))
        self._settings = self._settings.model_copy(update={"upstream_url": f"{sockets.url_of(listener)}/v1"})
        command = [*self._program, "simulate", "--fd", str(listener.fileno()), "--watch-fd", str(workers.watch_fd)]
        command += words_of(self._law)
        fds = (listener.fileno(), workers.watch_fd)

        def spawn() -> Awaitable[ChildProcess]:
            return children.start("simulated model", command, self._settings.to_environment(), fds)

        self._keep(stack, [Restarted("The simulated model", spawn, children.note_end)], SIMULATOR_S)
        return listener

    def _start_bookkeeper(
        self, stack: AsyncExitStack, children: Children, workers: ParentPipe, valkey_socket: Path | None
    ) -> None:
        command = [*self._program, "bookkeeper", "--watch-fd", str(workers.watch_fd)]
        if valkey_socket is not None:
            command += ["--valkey-socket", str(valkey_socket)]

        def spawn() -> Awaitable[ChildProcess]:
            return children.start("bookkeeper", command, self._settings.to_environment(), (workers.watch_fd,))

        self._bookkeeper = Restarted("The bookkeeper", spawn, children.note_end)
        self._keep(stack, [self._bookkeeper], FLUSH_S)

    def _start_workers(self, stack: AsyncExitStack, children: Children, workers: ParentPipe) -> None:
        supervisor = stack.enter_context(closing(ParentPipe()))
        stack.push_async_callback(self._stop_workers)
        options = ("--fd", "--admin-fd")
        listening = [listener.fileno() for listener in self._listeners]
        words = [word for name, fd in zip(options, listening, strict=False) for word in (name, str(fd))]
        command = [*self._program, "worker", *words, "--watch-fd", str(supervisor.watch_fd)]
        # A worker never reads the workers' pipe: it holds it open, which keeps bookkeeper and simulated model running.
        fds = (*listening, supervisor.watch_fd, workers.hold_fd)

        def start(name: str) -> Restarted:
            worker_id = ""

            def spawn() -> Awaitable[ChildProcess]:
                nonlocal worker_id
                worker_id = self._new_worker_id()
                environment = self._settings.to_environment()
                return children.start("worker", [*command, "--id", worker_id], environment, fds, worker_id)

            async def beats(_: ChildProcess) -> None:
                while True:
                    if await children.is_beating(worker_id):
                        return
                    await asyncio.sleep(BEAT_S)

            return Restarted(name, spawn, children.note_end, beats)

        self._new_worker = start
        self._workers += [start(f"Worker {number}") for number in range(1, self._settings.workers + 1)]
        self._started += self._workers

    async def _stop_workers(self) -> None:
        await asyncio.gather(*(worker.stop(self._patience_s) for worker in self._workers))

    @property
    def _patience_s(self) -> float:
        """Return how long a worker may take to end its calls and settle them."""
        return self._settings.shutdown_s + SETTLE_S

    def _listen_no_more(self) -> None:
        """Close the sockets here first: a caller that connects while the workers finish is refused at once."""
        for listener in self._listeners:
            listener.close()

    def _keep(self, stack: AsyncExitStack, children: Sequence[Restarted], patience_s: float) -> None:
        async def stop() -> None:
            await asyncio.gather(*(child.stop(patience_s) for child in children))

        self._started += children
        stack.push_async_callback(stop)

    async def _unless_child_ends(self, wait: Coroutine[Any, Any, object]) -> None:
        """Wait, unless a started process ends first.

        Raises:
            StartupError: a process ended; it has printed its own reason.
        """
        ends = [asyncio.create_task(child.first_end()) for child in self._started]
        first_end = asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        try:
            if not await finished(wait, unless=first_end):
                sentence = next(end.result() for end in ends if end.done())
                raise StartupError(f"{sentence} Its own words are above or in {self._data.valkey / 'valkey.log'}.")
        finally:
            for end in ends:
                end.cancel()


def words_of(law: Law) -> list[str]:
    """Return the options with which ``tokencap simulate`` answers by this law."""
    numbers = {
        "--tokens-per-s": law.tokens_per_s,
        "--mean-tokens": law.mean_tokens,
        "--first-token-s": law.first_token_s,
        "--seed": law.seed,
    }
    words = [word for name, number in numbers.items() for word in (name, str(number))]
    return [*words, "--ignore-limits"] if law.ignore_limits else words


async def _record_last_ends(children: Children, recording: asyncio.Task[None]) -> None:
    """Record the last workers' ends in Redis; the next start records those that Redis did not receive."""
    recording.cancel()
    with suppress(MeteringUnavailable):
        await children.ended_workers.record()
