"""``tokencap demo``: the whole loop on this machine, with a simulated model and simulated customers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.log import log_to_stderr
from gateway.cli.serve import PROGRAM, Serving, run_gateway
from gateway.errors import StartupError
from gateway.local.demo.board import Board
from gateway.local.demo.people import law_of
from gateway.local.demo.story import Stage, hurried, tell
from gateway.local.lifeline import told_to_stop
from gateway.local.simulator import Law
from gateway.settings import Settings
from pricing.market import read_market

PACKAGES = Path(__file__).parents[2]
MARKET = Path("gateway/local/demo/market.json")
NAMES = ("quick", "standard", "unlimited")
LINE_EVERY_S = 5.0

app = typer.Typer()


class Terminal:
    """Tells the story on standard output: on a terminal the table is drawn anew in its place, else a line now and then."""

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
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the gateway listens; 0 takes a free port.")] = 8080,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stops by itself after so long.")] = None,
    no_traffic: Annotated[bool, typer.Option("--no-traffic", help="Only the gateway and its customers' keys.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Keeps the data there; else it is gone at the end.")] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=200, help="The model's seconds in one of ours.")] = 20.0,
) -> None:
    """Price a sample market, publish the menu, let simulated customers choose and talk, compare what came of it.

    Exit 1 if the ledger differs from the model's own count, or the customers from what the menu expects of them by
    more than chance explains.
    """
    log_to_stderr()
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
        )
        agrees = asyncio.run(_demo(settings, token, speed, seconds, not no_traffic))
    if not agrees:
        raise typer.Exit(1)


def _leave_behind_settings(directory: Path) -> None:
    """Make sure that neither the environment nor a ``tokencap.toml`` of a real installation is used by any process."""
    for name in [name for name in os.environ if name.upper().startswith("TOKENCAP_")]:
        del os.environ[name]
    directory.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)


async def _demo(settings: Settings, token: str, speed: float, seconds: float | None, with_traffic: bool) -> bool:
    """Price the market while the gateway starts, tell the story, stop the gateway; return whether all agrees."""
    law = law_of(read_market(json.loads((PACKAGES / MARKET).read_text("utf-8"))))
    stop_gateway, stop_story = asyncio.Event(), asyncio.Event()
    told = asyncio.create_task(told_to_stop(None))
    told.add_done_callback(lambda _: stop_story.set())
    ready: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()
    gateway = asyncio.create_task(run_gateway(settings, stop_gateway, ready.set_result, hurried(law, speed)))
    priced = asyncio.create_task(_priced(settings.data_dir / "menu.json"))
    agrees = True
    try:
        starting: list[asyncio.Future[Any]] = [ready, gateway, told]
        await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
        menu = await priced
        if ready.done():
            if seconds is not None:
                asyncio.get_running_loop().call_later(seconds, stop_story.set)
            stage = _stage(ready.result(), menu, law, token, speed)
            agrees = await tell(stage, Terminal(), with_traffic, stop_story)
    finally:
        told.cancel()
        stop_gateway.set()
        await gateway
    return agrees


async def _priced(out: Path) -> Any:
    """Return the menu of the sample market, computed as anyone would compute it, in a process of its own.

    Raises:
        StartupError: it was not computed; the process has said why.
    """
    words = [
        "--market",
        str(PACKAGES / MARKET),
        "--tiers",
        str(len(NAMES)),
        "--names",
        ",".join(NAMES),
        "--out",
        str(out),
    ]
    command = [*PROGRAM, "price", "menu", *words]
    # In a session of its own a Ctrl-C at the terminal does not end it half-way.
    pricing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, start_new_session=True)
    if await pricing.wait():
        raise StartupError("The sample market was not priced.")
    return json.loads(await asyncio.to_thread(out.read_text, "utf-8"))


def _stage(serving: Serving, menu: Any, law: Law, token: str, speed: float) -> Stage:
    return Stage(
        url=serving.url,
        admin_token=token,
        model_url=serving.upstream_url.removesuffix("/v1"),
        menu=menu,
        market_file=str(MARKET),
        law=law,
        speed=speed,
        now_ms=lambda: time.time_ns() // 1_000_000,
        now_s=time.monotonic,
    )
