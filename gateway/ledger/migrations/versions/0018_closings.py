"""Closed months of customers, and the records that came after."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, String

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "closings",
        Column("customer", String(64), nullable=False),
        Column("month", String(7), nullable=False),
        Column("start", BigInteger(), nullable=False),
        Column("end", BigInteger(), nullable=False),
        Column("timezone", String(64), nullable=False),
        Column("chain", String(32), nullable=False),
        Column("seq", BigInteger(), nullable=False),
        Column("closed", BigInteger(), nullable=False),
        PrimaryKeyConstraint("customer", "month"),
    )
    op.create_index("ix_closings_month_customer", "closings", ["month", "customer"])
    op.create_index("ix_closings_end", "closings", ["end"])
    op.create_table(
        "late_records",
        Column("chain", String(32), nullable=False),
        Column("seq", BigInteger(), nullable=False),
        Column("customer", String(64), nullable=False),
        Column("counts", BigInteger(), nullable=False),
        PrimaryKeyConstraint("chain", "seq"),
    )
    op.create_index("ix_late_records_counts", "late_records", ["counts"])
