"""After an erasure nothing that names a customer or its users is on any disk, and the chain still holds."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import MetaData, insert, select, update

from gateway.exports.jsonl import encode
from gateway.ledger.book.appender import append
from gateway.ledger.book.erasure import ROWS_AT_ONCE, erase_records
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.ledger.sums_tables import sums_going
from gateway.ledger.tables import conversation_threads, customers, erasures, usage_dead_letters, usage_records
from tests.gateway.admin.operator import Operator
from tests.gateway.ledger.records import record

NAMES = ("Ada Lovelace", "ada-7@example.org", "ada-key", "ada-trip", "ada-user", "ada-call")
SECRET = b"s" * 32


def spoken(number: int, customer: str, **changes: object) -> dict[str, object]:
    return record(
        number,
        customer=customer,
        conversation=f"ada-trip-{number // 3}",
        end_user=f"ada-user-{number // 3}",
        client_request_id=f"ada-call-{number}",
        **changes,
    )


@pytest.fixture
async def ada(operator: Operator, database: Database) -> str:
    """A customer with a key and three records among those of others."""
    body = {"name": "Ada Lovelace", "external_id": "ada-7@example.org"}
    customer: str = (await operator.post("/admin/customers", body, Idempotency_Key="once"))["id"]
    await operator.post(f"/admin/customers/{customer}/keys", {"name": "ada-key"}, Idempotency_Key="key")
    append(database, [spoken(1, customer), record(2), spoken(3, customer), record(4), spoken(5, customer)])
    return customer


def exported(database: Database) -> list[dict[str, object]]:
    lines = b"".join(encode(usage_records_in(database, Span()))).splitlines()
    return [json.loads(line) for line in lines]


async def test_what_names_a_customer_is_gone_and_the_chain_holds(
    operator: Operator, database: Database, ada: str
) -> None:
    """Numbers, charges and hashes stay; conversations and end users stay apart from one another."""
    before = exported(database)

    await operator.delete(f"/admin/customers/{ada}?erase=true")

    verdict = verify_chain(database)
    assert (verdict.rows, verdict.bad, verdict.erased) == (5, None, 3)
    after = exported(database)
    words = {"conversation", "end_user", "client_request_id"}
    assert [{n: v for n, v in row.items() if n not in words} for row in after] == [
        {n: v for n, v in row.items() if n not in words} for row in before
    ]
    of_ada = [row for row in after if row["customer"] == ada]
    assert [row["client_request_id"] for row in of_ada] == [None] * 3
    assert len({row["conversation"] for row in of_ada}) == len({row["end_user"] for row in of_ada}) == 2
    assert all(str(row["conversation"]).startswith("erased-") for row in of_ada)
    assert not any(name in json.dumps(after) for name in NAMES)


async def test_an_erased_row_that_is_changed_is_found(operator: Operator, database: Database, ada: str) -> None:
    """What is left of it is held against what was left of it then; so is its place."""
    await operator.delete(f"/admin/customers/{ada}?erase=true")
    with database.write() as connection:
        connection.execute(update(usage_records).where(usage_records.c.seq == 3).values(charge_nanousd=1))

    verdict = verify_chain(database)

    assert verdict.bad is not None
    assert (verdict.bad.seq, verdict.bad.reason) == (3, "it was erased, and changed since")


async def test_a_row_that_was_changed_before_is_not_made_sound_by_an_erasure(
    operator: Operator, database: Database, ada: str
) -> None:
    with database.write() as connection:
        connection.execute(update(usage_records).where(usage_records.c.seq == 3).values(charge_nanousd=1))

    await operator.delete(f"/admin/customers/{ada}?erase=true")

    verdict = verify_chain(database)
    assert verdict.bad is not None
    assert verdict.bad.seq == 3
    assert not any(name in json.dumps(exported(database)) for name in NAMES)


async def test_what_comes_late_brings_no_name_back(operator: Operator, database: Database, ada: str) -> None:
    """A record that is delivered again is the one in the book; one of a call that ended after it names nobody."""
    await operator.delete(f"/admin/customers/{ada}?erase=true")

    appended = append(database, [spoken(1, ada), spoken(6, ada), spoken(6, ada)])

    assert [(row["seq"], row["conversation"], row["client_request_id"]) for row in appended] == [(6, "erased", None)]
    assert verify_chain(database).bad is None
    with database.read() as connection:
        assert connection.execute(usage_dead_letters.select()).all() == []


async def test_an_erasure_that_was_broken_off_is_finished_by_another(
    operator: Operator, database: Database, ada: str
) -> None:
    """What was erased by then stays as it is."""
    with database.write() as connection:
        connection.execute(update(customers).where(customers.c.id == ada).values(status="deleted", name="", erased=1))
    assert erase_records(database, ada, SECRET, now_ms=1) == 3
    with database.read() as connection:
        first = connection.execute(erasures.select()).all()

    await operator.delete(f"/admin/customers/{ada}?erase=true")

    with database.read() as connection:
        assert connection.execute(erasures.select()).all() == first
    assert verify_chain(database).bad is None


async def test_what_was_set_aside_names_nobody_either(operator: Operator, database: Database, ada: str) -> None:
    rows = [
        {"stream": "s", "entry": "1-0", "reason": "x", "body": json.dumps({"record": json.dumps(spoken(9, ada))})},
        {"stream": "s", "entry": "2-0", "reason": "x", "body": json.dumps({"record": f'{{"{ada}": "ada-user'})},
    ]
    with database.write() as connection:
        connection.execute(usage_dead_letters.insert(), rows)

    await operator.delete(f"/admin/customers/{ada}?erase=true")

    with database.read() as connection:
        bodies = [row.body for row in connection.execute(usage_dead_letters.select())]
    assert not any(name in body for body in bodies for name in NAMES)
    assert json.loads(json.loads(bodies[0])["record"])["billed_output_tokens"] == spoken(9, ada)["billed_output_tokens"]


def dumped(database: Database) -> str:
    """Return every cell of every table that the server says there is, as text."""
    there = MetaData()
    with database.read() as connection:
        there.reflect(connection)
        return "\n".join(str(tuple(row)) for name in there.tables.values() for row in connection.execute(select(name)))


async def test_no_table_has_a_word_of_it(operator: Operator, database: Database, ada: str) -> None:
    """Neither ours nor any that the database has beside them; each word was in one before."""
    assert all(name in dumped(database) for name in NAMES)

    await operator.delete(f"/admin/customers/{ada}?erase=true")

    left = dumped(database)
    assert ada in left
    assert [name for name in NAMES if name in left] == []


def test_every_record_is_erased_however_many_there_are(database: Database) -> None:
    """Also words that begin like what the erasure puts in their place; doing it again changes nothing."""
    append(database, [spoken(number, "cus_many") for number in range(ROWS_AT_ONCE + 1)])
    append(database, [record(900, customer="cus_many", conversation="erased-ada-trip", end_user="erased by ada-user")])

    counts = [erase_records(database, "cus_many", SECRET, 5) for _ in range(2)]

    assert counts == [ROWS_AT_ONCE + 2, 0]
    assert "ada-" not in json.dumps(exported(database))
    assert verify_chain(database).is_sound


async def test_conversations_that_go_on_are_erased_with_their_customer_alone(
    operator: Operator, database: Database, ada: str
) -> None:
    """Those of the sums and those that answers lead to."""
    numbers = dict.fromkeys(("first", "last", "tokens", "waited_ms", "early_ms", "untimed_ms", "duration_ms", "at"), 1)
    texts = {"tier": "t2", "menu_version": "m1", "record": "call-000001", "finish": "cap", "chosen": False, "fault": ""}
    names = [{"customer": customer, "conversation": "ada-trip"} for customer in (ada, "cus_other")]
    with database.write() as connection:
        connection.execute(insert(conversation_threads), [{**name, "thread": "tail-1", "settled": 1} for name in names])
        connection.execute(insert(sums_going), [{**name, **numbers, **texts} for name in names])

    await operator.delete(f"/admin/customers/{ada}?erase=true")

    with database.read() as connection:
        for table in (conversation_threads, sums_going):
            left = connection.execute(select(table.c.customer).where(table.c.conversation == "ada-trip")).scalars()
            assert list(left) == ["cus_other"]
