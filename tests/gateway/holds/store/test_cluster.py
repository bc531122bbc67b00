"""The same holds in a cluster: every key that a script touches is declared and lies in one slot."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import InsufficientQuota
from gateway.holds.hold import Checkpoint
from gateway.ledger.database import Database
from gateway.ledger.read.queries import totals
from gateway.ledger.writer import Writer
from tests.gateway.holds.desk import desk
from tests.gateway.holds.test_stories import STORIES


@pytest.mark.parametrize("name", STORIES)
async def test_a_story_is_the_same_in_a_cluster(name: str, cluster_url: str) -> None:
    async with desk(cluster_url) as told:
        await told.tell(STORIES[name])


async def test_customers_of_all_nodes_are_served_renewed_reclaimed_and_booked(
    cluster_url: str, database: Database
) -> None:
    """Forty customers, spread over three nodes by their buckets."""
    async with desk(cluster_url) as told:
        told.tier("basic", period_tokens_max=100, price_nanousd=1)
        customers = [f"cus_{number}" for number in range(40)]
        for customer in customers:
            told.customer(customer, "basic")
        await told.connection.execute("PING")  # as a worker does when it starts
        holds = await asyncio.gather(*(told.reserve(f"c-{customer}", customer, 60) for customer in customers))
        for hold in holds:
            assert await told.settlements.renew(hold.facts.bucket, {hold.id: Checkpoint(10)}) == {hold.id: "live"}
        with pytest.raises(InsufficientQuota):
            await told.reserve("c-more", customers[0], 60)
        await asyncio.gather(*(told.settlements.settle(hold, told.outcome(50)) for hold in holds))
        writer = Writer(told.blocking, database)
        while writer.turn():
            pass

        assert told.reclaimer(lambda: 0.0).turn() == 0
        assert totals(database).billed_output_tokens == 40 * 50
        assert {told.window(customer)["used"] for customer in customers} == {50}
