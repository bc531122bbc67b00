"""Removes a customer's own words from the book, and keeps evidence that nothing else of a row was changed.

A row's hash covers the words, so the hash of an erased row cannot be computed again. The row keeps its hash, and a
digest of its remaining fields is stored beside it: its place in the chain is still checked against the hash, its tokens
and its charge against the digest.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, tuple_, update

from gateway.ledger.book.chain import link, remainder
from gateway.ledger.book.merkle import leaf_of
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS, record_of, without_silence
from gateway.ledger.sums_tables import sums_going
from gateway.ledger.tables import (
    chains,
    conversation_threads,
    customers,
    erasures,
    rollup_conversations,
    usage_dead_letters,
    usage_records,
)
from pricing.usage import UsageRecord

WORDS = ("conversation", "client_request_id", "end_user")
"""The fields of a record whose text a customer chooses."""

ERASED = "erased"
ROWS_AT_ONCE = 500


def without_words(record: UsageRecord) -> UsageRecord:
    """Return a record without its customer's words, for booking after the customer was erased."""
    blanks = {"conversation": ERASED, "client_request_id": None, "end_user": ERASED}
    return record | {field: blank for field, blank in blanks.items() if record.get(field) is not None}


def erased_among(connection: Connection, named: set[str]) -> set[str]:
    """Return which of these customers were erased."""
    found: set[str] = set()
    names = sorted(named)
    for start in range(0, len(names), ROWS_AT_ONCE):
        chunk = names[start : start + ROWS_AT_ONCE]
        query = select(customers.c.id).where(customers.c.id.in_(chunk), customers.c.erased.is_not(None))
        found.update(connection.execute(query).scalars())
    return found


def begin(connection: Connection) -> None:
    """Wait for the present writers of the book; a later writer sees that the customer was erased."""
    connection.execute(select(chains.c.seq).with_for_update()).all()


def erase_records(database: Database, customer_id: str, secret: bytes, now_ms: int) -> int:
    """Replace the words in a customer's rows, some rows in each transaction; return how many rows had words.

    Conversations and end users stay distinct, under names that cannot be traced back: ``secret`` is random and
    forgotten. A repetition after an interruption continues where the erasure stopped.
    """
    place, count = (-1, ""), 0
    mine = usage_records.c.customer == customer_id
    while True:
        page = select(*COLUMNS).where(mine, tuple_(usage_records.c.time, usage_records.c.id) > place)
        page = page.order_by(usage_records.c.time, usage_records.c.id).limit(ROWS_AT_ONCE)
        with database.write() as connection:
            records = [record_of(row) for row in connection.execute(page)]
            count += _erase(connection, [record for record in records if _has_words(record)], secret, now_ms)
        if len(records) < ROWS_AT_ONCE:
            return count
        place = records[-1]["time"], records[-1]["id"]


def erase_beside(connection: Connection, customer_id: str, secret: bytes) -> None:
    """Replace or remove a customer's words in the tables beside the book: conversations, threads and dead letters."""
    going = select(sums_going.c.conversation).where(sums_going.c.customer == customer_id)
    for name in connection.execute(going).scalars().all():
        conversation = and_(sums_going.c.customer == customer_id, sums_going.c.conversation == name)
        connection.execute(update(sums_going).where(conversation).values(conversation=_replaced(name, secret)))
    connection.execute(delete(rollup_conversations).where(rollup_conversations.c.customer == customer_id))
    connection.execute(delete(conversation_threads).where(conversation_threads.c.customer == customer_id))
    dead = select(usage_dead_letters).where(usage_dead_letters.c.body.contains(customer_id))
    for row in connection.execute(dead).all():
        this = and_(usage_dead_letters.c.stream == row.stream, usage_dead_letters.c.entry == row.entry)
        connection.execute(update(usage_dead_letters).where(this).values(body=_blanked(row.body, customer_id)))


def _erase(connection: Connection, records: list[UsageRecord], secret: bytes, now_ms: int) -> int:
    if not records:
        return 0
    changes, proofs = [], []
    for record in records:
        words = {field: _replaced(record.get(field), secret) for field in WORDS} | {"client_request_id": None}
        place = {"chain": record["chain"], "seq": record["seq"]}
        changes.append({"a_chain": place["chain"], "a_seq": place["seq"], **words})
        if link(record["prev_hash"], record)["hash"] == record["hash"]:
            remaining = without_silence({**record, **words})
            leaf = leaf_of(record).hex()  # a seal covers this leaf, now or later: the row's place stays provable
            proofs.append({**place, "at": now_ms, "digest": remainder(remaining), "leaf": leaf})
        # A row that was edited before gets no digest: the recount names the row, as before the erasure.
    this = and_(usage_records.c.chain == bindparam("a_chain"), usage_records.c.seq == bindparam("a_seq"))
    connection.execute(update(usage_records).where(this).values({field: bindparam(field) for field in WORDS}), changes)
    for proof in proofs:
        connection.execute(delete(erasures).where(erasures.c.chain == proof["chain"], erasures.c.seq == proof["seq"]))
    if proofs:
        connection.execute(insert(erasures), proofs)
    return len(records)


def _has_words(record: UsageRecord) -> bool:
    return any((text := record.get(field)) is not None and not _is_erased(text) for field in WORDS)


def _is_erased(text: str) -> bool:
    return text == ERASED or (text.startswith(f"{ERASED}-") and len(text) == len(ERASED) + 17)


def _replaced(text: str | None, secret: bytes) -> str | None:
    if text is None or _is_erased(text):
        return text
    return f"{ERASED}-{hmac.new(secret, text.encode('utf-8', 'surrogatepass'), 'sha256').hexdigest()[:16]}"


def _blanked(body: str, customer_id: str) -> str:
    """Return the body of a dead letter without the customer's words; an unreadable body is replaced."""
    try:
        fields: dict[str, Any] = json.loads(body)
        record = json.loads(fields["record"])
        if record.get("customer") != customer_id:
            return body
        return json.dumps({**fields, "record": json.dumps(without_words(record))})
    except (ValueError, KeyError, TypeError, AttributeError):
        return json.dumps({"erased": customer_id})
