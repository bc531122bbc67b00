"""What each end user of a customer has had, as a rebuild reads it from the book."""

from __future__ import annotations

from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.ledger.read.queries import tokens_by_end_user
from tests.gateway.ledger.records import NOON, record


def test_an_end_user_has_had_its_billed_output_tokens_of_the_calls_of_the_period(database: Database) -> None:
    booked = [
        record(1, end_user="ann", billed_output_tokens=7, output_tokens=9, input_tokens=1_000),
        record(2, end_user="bob", billed_output_tokens=5),
        record(3, end_user="ann", billed_output_tokens=11),
        record(4, end_user=None, billed_output_tokens=13),
        record(5, end_user="ann", billed_output_tokens=17, customer="cus_other"),
        record(6, end_user="ann", billed_output_tokens=19),
    ]
    append(database, booked)

    assert tokens_by_end_user(database, "cus_acme", NOON + 1, NOON + 6) == {"ann": 18, "bob": 5, None: 13}
