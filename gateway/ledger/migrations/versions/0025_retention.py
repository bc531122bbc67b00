"""Retention: which months of customers were dropped, their totals, and which rows are gone."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, PrimaryKeyConstraint, String, Text

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.create_table(
        "dropped_months",
        Column("customer", String(64), nullable=False),
        Column("month", String(7), nullable=False),
        Column("start", BigInteger(), nullable=False),
        Column("end", BigInteger(), nullable=False),
        Column("rows", BigInteger(), nullable=False),
        Column("at", BigInteger(), nullable=False),
        Column("is_done", Boolean(), nullable=False),
        PrimaryKeyConstraint("customer", "month"),
    )
    op.create_index("ix_dropped_months_month_customer", "dropped_months", ["month", "customer"])
    op.create_table(
        "dropped_totals",
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("customer", String(64), nullable=False),
        Column("month", String(7), nullable=False),
        Column("day", String(10), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("tier", String(64)),
        Column("key_id", String(64)),
        Column("end_user", String(256)),
        Column("menu_version", String(128)),
        Column("sums", Text(), nullable=False),
    )
    op.create_index("ix_dropped_totals_customer_month", "dropped_totals", ["customer", "month"])
    op.create_table(
        "dropped_conversations",
        Column("customer", String(64), nullable=False),
        Column("conversation", String(128), nullable=False),
        Column("first", BigInteger(), nullable=False),
        Column("last", BigInteger(), nullable=False),
        Column("is_begun", Boolean(), nullable=False),
        PrimaryKeyConstraint("customer", "conversation"),
    )
    op.create_table(
        "dropped_rows",
        Column("chain", String(32), nullable=False),
        Column("seal", BigInteger(), nullable=False),
        Column("rows", LargeBinary(), nullable=False),
        PrimaryKeyConstraint("chain", "seal"),
    )
