"""The same holds in a cluster: every key that a script touches is declared and lies in one slot."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import InsufficientQuota
from gateway.holds.hold import Checkpoint
from gateway.ledger.database import Database
from gateway.ledger.read.queries import totals
from gateway.ledger.writer import Writer
from tests.gateway.holds.harness import holds_harness
from tests.gateway.holds.test_stories import STORIES


@pytest.mark.parametrize("name", STORIES)
async def test_a_story_is_the_same_in_a_cluster(name: str, cluster_url: str) -> None:
    async with holds_harness(cluster_url) as harness:
        await harness.play(STORIES[name])


async def test_customers_of_all_nodes_are_served_renewed_reclaimed_and_booked(
    cluster_url: str, database: Database
) -> None:
    """Forty customers, spread over three nodes by their buckets."""
    async with holds_harness(cluster_url) as harness:
        harness.tier("basic", period_tokens_max=100, price_nanousd=1)
        customers = [f"cus_{number}" for number in range(40)]
        for customer in customers:
            harness.customer(customer, "basic")
        await harness.connection.execute("PING")  # as a worker does when it starts
        holds = await asyncio.gather(*(harness.reserve(f"c-{customer}", customer, 60) for customer in customers))
        for hold in holds:
            assert await harness.settlements.renew(hold.facts.bucket, {hold.id: Checkpoint(10)}) == {hold.id: "live"}
        with pytest.raises(InsufficientQuota):
            await harness.reserve("c-more", customers[0], 60)
        await asyncio.gather(*(harness.settlements.settle(hold, harness.outcome(50)) for hold in holds))
        writer = Writer(harness.blocking, database)
        while writer.turn():
            pass

        assert harness.reclaimer(lambda: 0.0).turn() == 0
        assert totals(database).billed_output_tokens == 40 * 50
        assert {harness.window(customer)["used"] for customer in customers} == {50}
