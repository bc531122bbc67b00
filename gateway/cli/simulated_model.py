"""``tokencap simulate``: the simulated OpenAI-compatible model on its own."""

from __future__ import annotations

import socket
from functools import partial
from typing import Annotated

import typer
import uvloop

from gateway.errors import StartupError
from gateway.redaction import log_to_stderr
from gateway.runtime import sockets
from gateway.runtime.http.connections import Door
from gateway.runtime.http.limits import HttpLimits
from gateway.runtime.http.server import serve
from gateway.runtime.parent_death import stop_requested
from gateway.settings import read_settings
from gateway.simulator.engines import QUIRKS
from gateway.simulator.model_server import Law, build

LAW = Law()
SHUTDOWN_S = 5.0
LIMITS = HttpLimits(connections_max=100_000, connections_per_address_max=100_000)
"""All connections of the simulated model are the gateway's."""

app = typer.Typer()


@app.command("simulate")
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens; 0 takes a free port.")] = 8090,
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
    tokens_per_s: Annotated[float, typer.Option(help="The pace of each answer.")] = LAW.tokens_per_s,
    mean_tokens: Annotated[float, typer.Option(help="The mean length of an answer.")] = LAW.mean_tokens,
    first_token_s: Annotated[float, typer.Option(help="The wait before the first token.")] = LAW.first_token_s,
    seed: Annotated[int, typer.Option(help="Equal seeds and equal calls give equal answers.")] = LAW.seed,
    profile: Annotated[str, typer.Option(help=f"The engine that it imitates: {', '.join(QUIRKS)}.")] = LAW.profile,
    ignore_limits: Annotated[bool, typer.Option(help="Check limits, then answer past them.")] = LAW.ignore_limits,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A socket that listens already.")] = None,
    watch_fd: Annotated[int | None, typer.Option(hidden=True, help="Ends when the gateway's workers do.")] = None,
) -> None:
    """Run a stand-in for the model: answers of a known random length, in real time, with its own count of tokens.

    It serves the model that TOKENCAP_MODEL names, and says on every answer that it is a simulator.
    """
    log_to_stderr()
    try:
        law = Law(
            tokens_per_s,
            mean_tokens,
            first_token_s,
            seed,
            ignore_limits=ignore_limits,
            profile=profile,
            model=read_settings().model,
        )
        served = build(law)
    except ValueError as error:
        raise StartupError(str(error), exit_code=2) from error
    listener = sockets.listen(host, port) if fd is None else socket.socket(fileno=fd)
    if fd is None:
        print(f"The simulated model answers at {sockets.url_of(listener)}/v1", flush=True)
    uvloop.run(serve([(served, listener)], stop_requested(watch_fd), SHUTDOWN_S, partial(Door, LIMITS)))
