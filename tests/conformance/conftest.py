"""One gateway for all clients: a model that answers with twelve tokens, after twenty tool calls where it has tools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.simulator.lengths import Table
from gateway.simulator.model_server import Law
from tests.conformance.clients.apart import APART
from tests.conformance.clients.node import NODE
from tests.loop.rig import Rig, rig
from tests.servers import short_directory, valkey_in

ANSWER_TOKENS = 12
TOOL_CALLS = 20
CAP = 7
LAW = Law(tokens_per_s=float("inf"), first_token_s=0, lengths=Table((ANSWER_TOKENS,), (1.0,)), tool_calls=TOOL_CALLS)


@pytest.fixture(scope="session", autouse=True)
def drivers() -> Iterator[None]:
    """End the processes of clients that tests have started."""
    yield
    for driver in (NODE, APART):
        driver.close()


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("conformance")
    with (
        short_directory() as beside,
        valkey_in(beside) as redis_url,
        rig(
            redis_url,
            f"sqlite:///{directory / 'ledger.sqlite'}",
            directory,
            law=LAW,
            embedding_model="aligned-1-embedding",
        ) as loop,
    ):
        loop.tier("open", price_nanousd=9)
        loop.tier("small", conversation_tokens_max=CAP, price_nanousd=9)
        loop.tier("scarce", period_tokens_max=20)
        yield loop
