"""What leads a later call back to its conversation is known for an hour, and for another whenever it is named."""

from __future__ import annotations

from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.threads import Threads
from tests.gateway.holds.harness import HoldsHarness, digest_of, holds_harness

HOUR_S, MINUTE_S = 3_600, 60
BUCKET = redis_keys.bucket_of("acme")
WHOSE = BUCKET, digest_of("acme")


async def answered(harness: HoldsHarness, name: str, *threads: str, **outcome: int) -> None:
    """Make a call of a conversation of this name whose answer leads back to it."""
    await harness.reserve(name, "acme", 100, conversation=name)
    await harness.settlements.settle(harness.holds[name], harness.outcome(10, threads=threads, **outcome))


def left_s(harness: HoldsHarness, thread: str) -> float:
    return harness.blocking.pttl(redis_keys.thread(BUCKET, "acme", thread)) / 1000


async def opened(harness: HoldsHarness) -> Threads:
    harness.tier("basic")
    for name in ("acme", "other"):
        harness.customer(name, "basic")
    return Threads(harness.connection, LookupCache(harness.connection), harness.admission.in_force)


async def test_it_is_known_for_an_hour_from_when_it_was_made_or_named_last(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        threads = await opened(harness)
        await answered(harness, "c1", "item-a")
        assert HOUR_S - MINUTE_S < left_s(harness, "item-a") <= HOUR_S
        harness.blocking.pexpire(redis_keys.thread(BUCKET, "acme", "item-a"), 5_000)

        assert await threads.conversation_of_each(*WHOSE, ["item-a", "item-b"]) == ["c1", None]
        assert HOUR_S - MINUTE_S < left_s(harness, "item-a") <= HOUR_S


async def test_what_fits_two_conversations_leads_to_none_but_the_end_of_a_text_to_the_later(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        threads = await opened(harness)
        await answered(harness, "c1", "tool-a", "tail-a")
        await answered(harness, "c2", "tool-a", "tail-a")
        await answered(harness, "c3", "tool-c")

        assert await threads.conversation(*WHOSE, ["tool-a"]) == ""
        assert await threads.conversation(*WHOSE, ["tail-a"]) == "c2"
        assert await threads.conversation(*WHOSE, ["tool-c"]) == "c3"
        assert await threads.conversation(*WHOSE, ["tool-x"]) is None
        assert await threads.conversation(*WHOSE, []) is None


async def test_tool_calls_that_agree_go_before_the_text_of_an_answer(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        threads = await opened(harness)
        await answered(harness, "c1", "tool-a")
        await answered(harness, "c2", "tool-b", "tail-b")

        assert await threads.conversation(*WHOSE, ["tool-a", "tail-b"]) == "c1"
        assert await threads.conversation(*WHOSE, ["tool-a", "tool-b"]) == ""
        assert await threads.conversation(*WHOSE, ["tool-a", "tool-b", "tail-b"]) == "c2"


async def test_it_leads_nobody_else_anywhere(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        threads = await opened(harness)
        await answered(harness, "c1", "item-a")
        stranger = redis_keys.bucket_of("other"), digest_of("other")

        assert await threads.conversation_of_each(*stranger, ["item-a"]) == [None]
        assert await threads.conversation(*stranger, ["item-a"]) is None
        assert await threads.conversation_of_each(BUCKET, digest_of("nobody"), ["item-a"]) == [None]


async def test_what_was_said_so_far_is_what_was_read_and_what_was_written(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        threads = await opened(harness)
        await answered(harness, "c1", input_tokens=70)

        assert await threads.tokens_so_far(*WHOSE, "c1") == 80
        assert await threads.tokens_so_far(*WHOSE, "c2") is None
