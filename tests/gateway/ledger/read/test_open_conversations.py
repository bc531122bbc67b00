"""Claims about the conversations the book still knows to be open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.read.open_conversations import (
    DAY_MS,
    HOUR_MS,
    SWEEP_EVERY,
    Conversation,
    ConversationCall,
    gathered,
    open_conversations,
)
from tests.gateway.ledger.records import NOON, record


def call(time: int, tokens: int = 10, **changes: Any) -> ConversationCall:
    whole: dict[str, Any] = {
        "customer": "cus_acme",
        "conversation": "c1",
        "time": time,
        "settled": time,
        "tier": "t2",
        "menu_version": "m1",
        "tokens": tokens,
        "input_tokens": 3,
    }
    return ConversationCall(**{**whole, **changes})


def test_the_calls_of_a_conversation_add_up_under_its_first_tier() -> None:
    calls = [call(0, tokens=0), call(10), call(20, settled=500, tier="t9", menu_version="m9")]

    assert list(gathered(calls)) == [
        Conversation(
            customer="cus_acme",
            name="c1",
            tier="t2",
            menu_version="m1",
            tokens=20,
            input_tokens=9,
            was_charged=True,
            first=0,
            last=500,
        )
    ]


def test_a_conversation_has_the_cap_that_its_records_say_last() -> None:
    """Those of before they said so say nothing of it."""
    (conversation,) = gathered([call(0), call(10, cap=400), call(20)])

    assert conversation.cap == 400


def test_a_conversation_without_an_output_token_was_not_charged() -> None:
    (conversation,) = gathered([call(0, tokens=0)])

    assert not conversation.was_charged


def test_a_conversation_that_was_charged_stays_charged_when_it_is_corrected_to_nothing() -> None:
    (conversation,) = gathered([call(0, tokens=10), call(0, tokens=-10)])

    assert conversation.tokens == 0
    assert conversation.was_charged


def test_a_name_used_again_an_hour_after_the_last_call_is_a_new_conversation() -> None:
    calls = [call(0, settled=1_000), call(HOUR_MS + 999), call(3 * HOUR_MS)]

    assert [(found.first, found.tokens) for found in gathered(calls)] == [(0, 20), (3 * HOUR_MS, 10)]


def test_a_conversation_ends_a_day_after_its_first_call_however_busy_it_is() -> None:
    calls = [call(time) for time in range(0, DAY_MS + HOUR_MS, HOUR_MS // 2)]

    assert [found.first for found in gathered(calls)] == [0, DAY_MS]


def test_the_same_name_of_two_customers_is_two_conversations() -> None:
    calls = [call(0), call(1, customer="cus_other"), call(2, conversation="c2")]

    assert len(list(gathered(calls))) == 3


def test_conversations_that_ended_are_not_kept_in_memory() -> None:
    """Four single calls a second: those of the first hour come out long before the last call is read."""
    read = 0

    def calls() -> Iterator[ConversationCall]:
        nonlocal read
        for read in range(60_000):
            yield call(read * 250, conversation=f"c{read}")

    found = gathered(calls())

    assert next(found).name == "c0"
    assert read < 4 * 3_600 + SWEEP_EVERY
    assert 1 + sum(1 for _ in found) == 60_000


def test_the_book_knows_the_open_conversations_only(database: Database) -> None:
    now = NOON + 2 * DAY_MS
    append(
        database,
        [
            record(1, conversation="yesterday", time=now - DAY_MS - 1, settled=now),
            record(2, conversation="idle", time=now - 3 * HOUR_MS, settled=now - HOUR_MS),
            record(3, conversation="long", time=now - 3 * HOUR_MS, settled=now - HOUR_MS + 1),
            record(4, conversation="open", time=now - HOUR_MS, settled=now - 10, billed_output_tokens=70),
            record(5, conversation="open", time=now - 10, settled=now, billed_output_tokens=7),
            record(6, conversation=None, kind="fee", time=now, settled=now),
        ],
    )

    found = {conversation.name: conversation for conversation in open_conversations(database, now)}

    assert found.keys() == {"long", "open"}
    assert found["open"].tokens == 77
    assert found["open"].first == now - HOUR_MS
