"""``tokencap demo``: the whole loop on this machine, with a simulated model and simulated customers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.serve import Serving, run_gateway
from gateway.clock import now_ms
from gateway.demo.loop import Loop, Price
from gateway.demo.screen import Board
from gateway.demo.simulated_customers import law_of
from gateway.demo.story import Stage, hurried, run_story
from gateway.errors import StartupError
from gateway.redaction import log_to_stderr
from gateway.runtime.children import Execute, execute
from gateway.runtime.parent_death import stop_requested
from gateway.settings import PROGRAM, Settings
from gateway.simulator.model_server import Law
from pricing.market.market import read_market

PACKAGES = Path(__file__).parents[2]
MARKET = Path("gateway/demo/market.json")
TO_LEARN = Path("gateway/demo/slow-market.json")
"""A slow model and customers far apart: tiers earn much more than a single plan there, which a short demo can show."""

NAMES = ("quick", "standard", "unlimited")
LINE_EVERY_S = 5.0
SPEED = 20.0
LEARN_SPEED = 8.0
"""Slow enough that the delay which the machine adds to each answer is relatively small."""

LEARN_LEAST_S = 100.0
"""A demo shorter than this sees too little to learn a market from."""

CALLS_MOST = 10**6

app = typer.Typer()


class Terminal:
    """Tells the story on standard output: a terminal shows a table redrawn in place, other output a line now and then."""

    def __init__(self) -> None:
        self._redraws = sys.stdout.isatty()
        self._drawn = 0
        self._last_s = 0.0

    def say(self, *lines: str) -> None:
        self._drawn = 0
        print(*lines, sep="\n", flush=True)

    def show(self, board: Board, elapsed_s: float) -> None:
        if self._redraws:
            lines = [f"after {elapsed_s:.0f} s", *board.lines()]
            print(
                f"\x1b[{self._drawn}A" * bool(self._drawn) + "\n".join(f"\x1b[2K{line}" for line in lines), flush=True
            )
            self._drawn = len(lines)
        elif elapsed_s - self._last_s >= LINE_EVERY_S:
            self._last_s = elapsed_s
            print(f"after {elapsed_s:.0f} s: {board.short()}", flush=True)


@app.command("demo")
def demo(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the gateway listens; 0 takes a free port.")] = 8080,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after this time; else at Ctrl-C.")] = None,
    no_traffic: Annotated[bool, typer.Option("--no-traffic", help="Only the gateway and its customers' keys.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Keep the data there; else it is deleted.")] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=200, help="The model's seconds in a real second; else 20, or 8 where a market is learnt."
        ),
    ] = None,
) -> None:
    """Price a sample market, publish the menu, let simulated customers choose and talk, compare the results.

    With --seconds 100 or more the operator does not know the market: it begins with a bad menu, learns from what
    customers do, publishes a better menu, and shows the estimate beside the truth.

    Exit 1 if the ledger differs from the model's own count, or if the customers differ from what the menu expects of
    them by more than chance explains.
    """
    log_to_stderr("warning")
    with ExitStack() as stack:
        directory = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokencap-demo-")))
        directory = directory.absolute()
        _leave_behind_settings(directory)
        token = f"tca-{secrets.token_urlsafe(32)}"
        settings = Settings(
            upstream_url="simulated",
            data_dir=directory,
            port=port,
            admin_token=token,  # type: ignore[arg-type]
            self_selection="conversation",
            model_aliases=("*",),  # agents name the models of their makers
            hosted_tools="drop",  # and bring tools that their makers would run
            requests_per_minute=CALLS_MOST,  # time is compressed, and so are the customers' minutes
            concurrency_max=CALLS_MOST,
            log_level="warning",  # the story is the output
        )
        learns = not no_traffic and seconds is not None and seconds >= LEARN_LEAST_S
        pace = speed or (LEARN_SPEED if learns else SPEED)
        agrees = asyncio.run(_demo(settings, token, pace, seconds, not no_traffic, learns, context.obj or execute))
    if not agrees:
        raise typer.Exit(1)


def _leave_behind_settings(directory: Path) -> None:
    """Make sure that neither the environment nor a ``tokencap.toml`` of a real installation is used by any process."""
    for name in [name for name in os.environ if name.upper().startswith("TOKENCAP_")]:
        del os.environ[name]
    directory.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)


async def _demo(
    settings: Settings,
    token: str,
    speed: float,
    seconds: float | None,
    with_traffic: bool,
    learns: bool,
    execute: Execute,
) -> bool:
    """Price the market while the gateway starts, tell the story, stop the gateway; return whether all agrees."""
    market = TO_LEARN if learns else MARKET
    market_json = json.loads((PACKAGES / market).read_text("utf-8"))
    law = law_of(read_market(market_json))
    stop_gateway, stop_story = asyncio.Event(), asyncio.Event()
    stop_signal = asyncio.create_task(stop_requested(None))
    stop_signal.add_done_callback(lambda _: stop_story.set())
    ready: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()
    gateway = asyncio.create_task(
        run_gateway(settings, stop_gateway, ready.set_result, hurried(law, speed), execute=execute)
    )
    priced = asyncio.create_task(_priced(PACKAGES / market, settings.data_dir / "menu.json", NAMES))
    agrees = True
    try:
        starting: list[asyncio.Future[Any]] = [ready, gateway, stop_signal]
        await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
        menu = await priced
        if ready.done():
            if seconds is not None:
                asyncio.get_running_loop().call_later(seconds, stop_story.set)
            stage = _stage(ready.result(), menu, market, law, token, speed)
            if learns and seconds is not None:
                agrees = await Loop(stage, market_json, _price_in(settings.data_dir), Terminal()).run(
                    stop_story, seconds
                )
            else:
                agrees = await run_story(stage, Terminal(), with_traffic, stop_story)
    finally:
        stop_signal.cancel()
        stop_gateway.set()
        await gateway
    return agrees


def _price_in(directory: Path) -> Price:
    """Return a function that prices a market through files in a directory."""

    async def price(market: Mapping[str, Any]) -> Any:
        market_file = directory / "market.json"
        await asyncio.to_thread(market_file.write_text, json.dumps(market), "utf-8")
        return await _priced(market_file, directory / "priced.json")

    return price


async def _priced(market: Path, out: Path, names: Sequence[str] = ()) -> Any:
    """Return the menu of a market, computed by the command ``price menu`` in a process of its own.

    Without names its tiers are t1, t2 and so on, because their number is not known before.

    Raises:
        StartupError: the menu was not computed; the process printed why.
    """
    options = ["--market", str(market), "--tiers", str(len(NAMES)), "--out", str(out)]
    options += ["--names", ",".join(names)] * bool(names)
    command = [*PROGRAM, "price", "menu", *options]
    # The process has its own session, so that Ctrl-C at the terminal does not end it half-way.
    pricing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, start_new_session=True)
    if await pricing.wait():
        raise StartupError("The sample market was not priced.")
    return json.loads(await asyncio.to_thread(out.read_text, "utf-8"))


def _stage(serving: Serving, menu: Any, market: Path, law: Law, token: str, speed: float) -> Stage:
    return Stage(
        url=serving.url,
        admin_token=token,
        model_url=serving.upstream_url.removesuffix("/v1"),
        menu=menu,
        market_file=str(market),
        law=law,
        speed=speed,
        now_ms=now_ms,
        now_s=time.monotonic,
    )
