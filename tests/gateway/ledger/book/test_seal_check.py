"""Claims about a recount that knows the seals: whoever rewrites the book with matching hashes is found out, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from gateway.ledger.book.appender import append, book
from gateway.ledger.book.chain import GENESIS, BadRow, canonical, link
from gateway.ledger.book.erasure import erase_records
from gateway.ledger.book.merkle import root_of
from gateway.ledger.book.seal_check import SealCheck
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.book.seals import Seal, digest_of, seals_in_order
from gateway.ledger.book.verify import Published, verify_all, verify_chain
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS, record_of
from gateway.ledger.tables import chains, seals, usage_records
from tests.gateway.ledger.records import record

TIME = 1_767_268_800_000
rows = usage_records.c


@pytest.fixture
def sealed(database: Database) -> Database:
    """Ten rows under three seals of four, four and two rows, and two rows more."""
    append(database, [record(number) for number in range(1, 11)])
    Sealer(database, lambda: TIME, rows=4).turn(all_of_it=True)
    append(database, [record(number) for number in range(11, 13)])
    return database


def published(database: Database) -> list[Seal]:
    return list(seals_in_order(database))


def tamper(database: Database, *statements: Any) -> None:
    with database.write() as connection:
        for statement in statements:
            connection.execute(statement)


def rewrite(database: Database, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Write the book anew with hashes that match, head included, as who has the database can."""
    with database.write() as connection:
        before = [record_of(row) for row in connection.execute(select(*COLUMNS).order_by(rows.seq))]
        connection.execute(delete(usage_records))
        connection.execute(update(chains).values(seq=0, hash=GENESIS))
        book(connection, change(before))


def seal_anew(database: Database) -> None:
    """Throw the seals away and make new ones over what is there."""
    tamper(database, delete(seals))
    Sealer(database, lambda: TIME, rows=4).turn(all_of_it=True)


def without(seq: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda before: [row for row in before if row["seq"] != seq]


def cheaper(seq: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda before: [{**row, "charge_nanousd": 1} if row["seq"] == seq else row for row in before]


def inserted(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*before[:5], record(99), *before[5:]]


def reordered(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*before[:5], before[6], before[5], *before[7:]]


def test_a_sealed_book_that_was_left_alone_is_sound(sealed: Database) -> None:
    found = verify_chain(sealed, published=Published(published(sealed), [published(sealed)[1].hash]))

    assert (found.rows, found.bad, found.seals, found.unseen) == (12, None, 3, ())
    assert found.last == published(sealed)[-1]


@pytest.mark.parametrize(
    ("change", "seq", "reason"),
    [
        (cheaper(6), 6, "seal 2 covers another row in its place"),
        (without(6), 6, "seal 2 covers another row in its place"),
        (inserted, 6, "seal 2 covers another row in its place"),
        (reordered, 6, "seal 2 covers another row in its place"),
        (lambda before: before[:7], 8, "it is missing, and seal 2 covers it"),
        (lambda before: before[:8], 9, "it is missing, and seal 3 covers it"),
    ],
    ids=["a flipped byte", "a deleted row", "an inserted row", "reordered rows", "a cut tail", "cut where a seal ends"],
)
def test_a_book_that_was_rewritten_with_matching_hashes_is_found_out_by_its_seals(
    sealed: Database, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], seq: int, reason: str
) -> None:
    rewrite(sealed, change)

    found = verify_chain(sealed).bad

    assert found is not None
    assert (found.seq, found.reason) == (seq, reason)


@pytest.mark.parametrize("change", [cheaper(6), without(6), inserted, reordered, lambda before: before[:7]])
def test_a_book_whose_seals_were_made_anew_is_found_out_by_those_that_were_published(
    sealed: Database, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    """By the file of them, which names the rows, and by the hash of the last one alone."""
    kept = published(sealed)
    rewrite(sealed, change)
    seal_anew(sealed)
    assert verify_chain(sealed).is_sound

    by_file, by_hash = (
        verify_chain(sealed, published=one) for one in (Published(kept), Published((), [kept[-1].hash]))
    )

    reason = "seal 2, which was published and covers the rows from here to 8, is another one now"
    assert by_file.bad is not None
    assert (by_file.bad.seq, by_file.bad.reason) == (5, reason)
    assert not by_hash.is_sound
    assert by_hash.unseen == (kept[-1].hash,)


def test_a_tail_that_was_cut_with_its_seals_is_found_out_by_those_that_were_published(sealed: Database) -> None:
    kept = published(sealed)
    rewrite(sealed, lambda before: before[:8])
    tamper(sealed, delete(seals).where(seals.c.seq == 3))
    assert verify_chain(sealed).is_sound

    found = verify_chain(sealed, published=Published(kept)).bad

    reason = "the ledger has no seal 3, which was published and covers the rows from here to 10"
    assert found == BadRow(9, None, reason)


def test_a_changed_seal_of_a_tail_that_was_cut_is_named_by_its_first_row(sealed: Database) -> None:
    rewrite(sealed, lambda before: before[:8])
    tamper(sealed, update(seals).where(seals.c.seq == 3).values(time=1))

    assert verify_chain(sealed).bad == BadRow(9, None, "seal 3, which covers it, was changed")


def test_an_emptied_ledger_is_found_out_by_a_published_seal(sealed: Database) -> None:
    kept = published(sealed)
    tamper(sealed, delete(seals), delete(usage_records), delete(chains))

    assert verify_all(sealed) == []
    [by_file] = verify_all(sealed, Published(kept))
    [by_hash] = verify_all(sealed, Published((), [kept[0].hash]))
    assert by_file.bad is not None
    assert by_file.bad.seq == 1
    assert not by_hash.is_sound


@pytest.mark.parametrize(
    ("statement", "seq", "reason"),
    [
        (delete(seals).where(seals.c.seq == 2), 5, "seal 2, which covers it, is missing"),
        (update(seals).where(seals.c.seq == 2).values(time=1), 5, "seal 2, which covers it, was changed"),
        (update(seals).where(seals.c.seq == 2).values(root="f" * 64), 5, "seal 2, which covers it, was changed"),
        (
            update(seals).where(seals.c.seq == 2).values(leaves=b"x" * 128),
            5,
            "the leaves that are kept with seal 2, which covers it, do not have its root",
        ),
    ],
)
def test_a_seal_that_was_tampered_with_is_named(sealed: Database, statement: Any, seq: int, reason: str) -> None:
    tamper(sealed, statement)

    found = verify_chain(sealed).bad

    assert found is not None
    assert (found.seq, found.reason) == (seq, reason)


def forge(database: Database, seq: int, leaves: list[bytes], **changes: int) -> None:
    """Write a seal anew over some leaves, with the root and the hash that it then has."""
    forged = replace(published(database)[seq - 1], root=root_of(leaves).hex(), **changes)
    fields = {name: getattr(forged, name) for name in ("time", "first_seq", "last_seq", "root")}
    changed = update(seals).where(seals.c.seq == seq).values(hash=digest_of(forged), leaves=b"".join(leaves), **fields)
    tamper(database, changed)


def leaves_of(database: Database, seq: int) -> list[bytes]:
    with database.read() as connection:
        leaves = connection.execute(select(seals.c.leaves).where(seals.c.seq == seq)).scalar_one()
    return [leaves[at : at + 32] for at in range(0, len(leaves), 32)]


def test_a_seal_that_was_forged_whole_is_named(sealed: Database) -> None:
    """With a hash that fits: one with more leaves than rows, one that leaves a row out, one that the next does not name."""
    last, second = leaves_of(sealed, 3), leaves_of(sealed, 2)
    for seq, leaves, changes, expected in (
        (3, [*last, last[0]], {}, (9, "the leaves that are kept with seal 3, which covers it, do not have its root")),
        (2, second[1:], {"first_seq": 6}, (5, "seal 2, which covers it, was changed")),
        (
            2,
            second,
            {"first_seq": 5, "time": 1},
            (9, "seal 3, which covers it, does not name the hash of the seal before it"),
        ),
    ):
        forge(sealed, seq, leaves, **changes)

        found = verify_chain(sealed).bad

        assert found is not None
        assert (found.seq, found.reason) == expected


def test_until_a_seal_covers_a_row_nothing_but_the_chain_holds_it(sealed: Database) -> None:
    """That is for a minute, or a thousand rows."""
    rewrite(sealed, cheaper(12))

    assert verify_chain(sealed).is_sound


def test_a_row_with_the_hash_of_another_content_is_still_named_by_its_own_hash(sealed: Database) -> None:
    with sealed.read() as connection:
        fifth = record_of(connection.execute(select(*COLUMNS).where(rows.seq == 5)).one())
    forged = link(fifth["prev_hash"], {**fifth, "charge_nanousd": 1})
    tamper(sealed, update(usage_records).where(rows.seq == 5).values(charge_nanousd=1, hash=forged["hash"]))

    assert verify_chain(sealed).bad == BadRow(5, fifth["id"], "seal 2 covers another row in its place")


def test_erased_rows_are_held_against_the_leaves_that_they_had(sealed: Database) -> None:
    assert erase_records(sealed, "cus_acme", b"secret", TIME) == 12

    found = verify_chain(sealed)

    assert (found.bad, found.erased, found.seals) == (None, 12, 3)


def test_a_row_behind_seals_whose_rows_are_all_gone_is_held_against_its_own(sealed: Database) -> None:
    """Retention may drop all rows of several seals: the next row is of a seal further on."""
    with sealed.read() as connection:
        leaves = {row.seq: row.leaves for row in connection.execute(select(seals.c.seq, seals.c.leaves))}
        ninth, eleventh = (
            canonical(record_of(connection.execute(select(*COLUMNS).where(rows.seq == seq)).one())) for seq in (9, 11)
        )
    parts = [
        (seal, [leaves[seal.seq][at : at + 32] for at in range(0, 32 * seal.rows, 32)]) for seal in published(sealed)
    ]
    check = SealCheck(iter(parts), {})

    assert check.fault(9, ninth) is None
    assert check.last == published(sealed)[2]
    assert check.fault(10, ninth) == "seal 3 covers another row in its place"
    assert check.fault(11, eleventh) is None
