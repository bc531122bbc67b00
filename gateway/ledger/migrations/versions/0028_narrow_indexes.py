"""Indexes of records by time without their ids: an id is as long as all the rest of an entry, and records of one
millisecond are few enough to be sorted where they are read.
"""

from alembic import op
from sqlalchemy import text

revision = "0028"
down_revision = "0027"

HAS_END_USER = text("end_user IS NOT NULL")


def upgrade() -> None:
    for name in ("time_id", "customer_time_id", "end_user_time_id"):
        op.drop_index(f"ix_usage_records_{name}", "usage_records")
    op.create_index("ix_usage_records_time", "usage_records", ["time"])
    op.create_index("ix_usage_records_customer_time", "usage_records", ["customer", "time"])
    op.create_index(
        "ix_usage_records_end_user_time",
        "usage_records",
        ["customer", "end_user", "time"],
        sqlite_where=HAS_END_USER,
        postgresql_where=HAS_END_USER,
    )
