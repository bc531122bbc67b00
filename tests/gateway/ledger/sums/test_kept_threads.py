"""What the ledger keeps of threads is what Redis had: an hour, one conversation each, the later of two cut answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.ledger.book.appender import book
from gateway.ledger.book.entries import Entry
from gateway.ledger.book.erasure import erase_beside
from gateway.ledger.database import Database
from gateway.ledger.sums.kept_threads import keep_threads, kept_threads, threads_in
from tests.gateway.ledger.records import NOON, settled_call

HOUR_MS = 3_600_000
TOOL, TAIL = "tool-" + "a" * 32, "tail-" + "b" * 32


def keep(database: Database, number: int, settled: int, *threads: str, **changes: Any) -> None:
    record = settled_call(number, **changes) | {"settled": settled, "charge_nanousd": 1}
    with database.write() as connection:
        booked = book(connection, [record])
        keep_threads(connection, {record["id"]: threads}, booked.appended)


def known(database: Database, customer: str = "cus_acme", since: int = 0) -> dict[str, str]:
    return {thread: name for _, thread, name, _ in kept_threads(database, [customer], since)}


def test_a_thread_leads_to_the_conversation_of_its_answer(database: Database) -> None:
    keep(database, 1, NOON, TOOL, conversation="c1")
    keep(database, 2, NOON + 1, TAIL, conversation="c2", customer="cus_other")

    assert known(database) == {TOOL: "c1"}
    assert known(database, "cus_other") == {TAIL: "c2"}
    assert known(database, since=NOON) == {}


def test_what_fits_two_conversations_leads_to_none_but_the_end_of_a_text_to_the_later(database: Database) -> None:
    keep(database, 1, NOON, TOOL, TAIL, conversation="c1")
    keep(database, 2, NOON + 1, TOOL, TAIL, conversation="c2")

    assert known(database) == {TOOL: "", TAIL: "c2"}


def test_one_batch_may_have_a_thread_twice(database: Database) -> None:
    """As where an agent's calls follow each other faster than they are booked."""
    records = [settled_call(n, conversation="c1") | {"settled": NOON + n, "charge_nanousd": 1} for n in (1, 2)]
    records.append(settled_call(3, conversation="c2") | {"settled": NOON + 3, "charge_nanousd": 1})
    threads = {records[0]["id"]: [TOOL, TAIL], records[1]["id"]: [TOOL], records[2]["id"]: [TAIL, TAIL]}
    with database.write() as connection:
        keep_threads(connection, threads, book(connection, records).appended)

    assert known(database) == {TOOL: "c1", TAIL: "c2"}


def test_the_same_record_twice_changes_nothing(database: Database) -> None:
    keep(database, 1, NOON, TOOL, conversation="c1")
    keep(database, 1, NOON, TOOL, conversation="c1")
    keep(database, 2, NOON + 1, TOOL, conversation="c1")

    assert known(database) == {TOOL: "c1"}


def test_a_thread_is_kept_for_an_hour_and_may_then_lead_elsewhere(database: Database) -> None:
    keep(database, 1, NOON, TOOL, TAIL, conversation="c1")
    keep(database, 2, NOON + HOUR_MS, TOOL, conversation="c2")
    assert known(database) == {TOOL: "", TAIL: "c1"}

    keep(database, 3, NOON + 2 * HOUR_MS + 1, TOOL, conversation="c3")
    assert known(database) == {TOOL: "c3"}


def test_erasing_a_customer_removes_its_threads(database: Database) -> None:
    keep(database, 1, NOON, TOOL)
    keep(database, 2, NOON, TAIL, customer="cus_other")
    with database.write() as connection:
        erase_beside(connection, "cus_acme", b"secret")

    assert known(database) == {}
    assert known(database, "cus_other")


NO_THREADS: list[Any] = [None, "tool", {"a": 1}, [1, None, "", "tool-", "tail-" + "g" * 32, TOOL.upper(), f"x{TOOL}"]]


@pytest.mark.parametrize("threads", NO_THREADS)
def test_what_is_no_thread_is_left_out_and_the_record_is_billed_all_the_same(threads: Any) -> None:
    record = json.dumps(settled_call() | {"threads": threads}, separators=(",", ":")).encode()
    assert threads_in(Entry("usage", "1-0", {b"record": record, b"cap": b"400"})) == []


def test_a_settlement_that_wrote_no_threads_has_none() -> None:
    record = json.dumps(settled_call() | {"threads": [TOOL]}, separators=(",", ":")).encode()
    assert threads_in(Entry("usage", "1-0", {b"record": record, b"cap": b"400"})) == [TOOL]
    assert threads_in(Entry("usage", "1-0", {b"record": record})) == []
