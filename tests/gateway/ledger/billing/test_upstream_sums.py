"""Claims about what the endpoint was asked for by day: tokens as counted, and which of them it did not count itself."""

from __future__ import annotations

from gateway.ledger.billing.upstream_sums import DaySum, sums_by_day
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from tests.gateway.ledger.records import NOON, record

DAY = 86_400_000
MIDNIGHT = NOON - NOON % DAY


def test_sums_are_by_day_of_calls_that_generate_and_of_embeddings(database: Database) -> None:
    """Fees and credits are none, nor is a correction of calls that nobody knows any more."""
    append(
        database,
        [
            record(1, input_tokens=10, cached_tokens=4, output_tokens=7, billed_output_tokens=5),
            record(2, output_tokens=3, usage_source="counted", input_tokens=8, input_source="estimate"),
            record(3, endpoint="/v1/embeddings", input_tokens=6, output_tokens=0, usage_source=None),
            record(4, kind="correction", corrects="call-000001", input_tokens=0, output_tokens=2),
            record(5, kind="correction", corrects=None, output_tokens=1_000),
            record(6, kind="fee", output_tokens=0),
            record(7, time=MIDNIGHT + DAY, input_tokens=1, output_tokens=1, usage_source="drained"),
            record(8, time=MIDNIGHT + 3 * DAY),
            record(9, customer="cus_other", input_tokens=1, output_tokens=1),
        ],
    )

    found = sums_by_day(database, MIDNIGHT, MIDNIGHT + 3 * DAY)

    assert found == [
        DaySum(MIDNIGHT, False, 3, 19, 4, 13, 8, 3),
        DaySum(MIDNIGHT, True, 1, 6, 0, 0, 0, 0),
        DaySum(MIDNIGHT + DAY, False, 1, 1, 0, 1, 0, 0),
    ]
