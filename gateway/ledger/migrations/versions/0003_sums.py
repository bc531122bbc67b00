"""The sums that a market is estimated from: counts by conversation, kept up as records come."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Double, PrimaryKeyConstraint, String

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _create_progress()
    _create_sums()
    _create_sums_of_customers()


def _create_progress() -> None:
    op.create_table(
        "sums_read",
        Column("chain", String(length=32), nullable=False),
        Column("seq", BigInteger(), nullable=False),
        PrimaryKeyConstraint("chain", name="pk_sums_read"),
    )
    op.create_table(
        "sums_going",
        Column("customer", String(length=64), nullable=False),
        Column("conversation", String(length=128), nullable=False),
        Column("first", BigInteger(), nullable=False),
        Column("last", BigInteger(), nullable=False),
        Column("tier", String(length=64), nullable=False),
        Column("menu_version", String(length=128), nullable=False),
        Column("chosen", Boolean(), nullable=False),
        Column("tokens", BigInteger(), nullable=False),
        Column("waited_ms", BigInteger(), nullable=False),
        Column("early_ms", BigInteger(), nullable=False),
        Column("at", BigInteger(), nullable=False),
        Column("record", String(length=64), nullable=False),
        Column("finish", String(length=16), nullable=False),
        Column("duration_ms", BigInteger(), nullable=False),
        Column("fault", String(length=64), nullable=False),
        PrimaryKeyConstraint("customer", "conversation", name="pk_sums_going"),
    )


def _create_sums() -> None:
    op.create_table(
        "sums_lengths",
        Column("week", BigInteger(), nullable=False),
        Column("menu_version", String(length=128), nullable=False),
        Column("tier", String(length=64), nullable=False),
        Column("tokens", BigInteger(), nullable=False),
        Column("observed", BigInteger(), nullable=False),
        Column("censored", BigInteger(), nullable=False),
        PrimaryKeyConstraint("week", "menu_version", "tier", "tokens", name="pk_sums_lengths"),
    )
    op.create_table(
        "sums_ages",
        Column("week", BigInteger(), nullable=False),
        Column("age", BigInteger(), nullable=False),
        Column("waits", BigInteger(), nullable=False),
        Column("disconnects", BigInteger(), nullable=False),
        Column("within_ms", BigInteger(), nullable=False),
        PrimaryKeyConstraint("week", "age", name="pk_sums_ages"),
    )
    op.create_table(
        "sums_pace",
        Column("week", BigInteger(), nullable=False),
        Column("calls", BigInteger(), nullable=False),
        Column("ttft_ms", BigInteger(), nullable=False),
        Column("ttft_squared", Double(), nullable=False),
        Column("tokens", BigInteger(), nullable=False),
        Column("tokens_squared", Double(), nullable=False),
        Column("ms", BigInteger(), nullable=False),
        Column("ms_squared", Double(), nullable=False),
        Column("tokens_ms", Double(), nullable=False),
        PrimaryKeyConstraint("week", name="pk_sums_pace"),
    )
    op.create_table(
        "sums_aside",
        Column("week", BigInteger(), nullable=False),
        Column("reason", String(length=64), nullable=False),
        Column("records", BigInteger(), nullable=False),
        PrimaryKeyConstraint("week", "reason", name="pk_sums_aside"),
    )


def _create_sums_of_customers() -> None:
    op.create_table(
        "sums_customers",
        Column("week", BigInteger(), nullable=False),
        Column("customer", String(length=64), nullable=False),
        Column("conversations", BigInteger(), nullable=False),
        Column("disconnects", BigInteger(), nullable=False),
        Column("waited_ms", BigInteger(), nullable=False),
        Column("early_disconnects", BigInteger(), nullable=False),
        Column("early_waited_ms", BigInteger(), nullable=False),
        Column("even_disconnects", BigInteger(), nullable=False),
        Column("even_waited_ms", BigInteger(), nullable=False),
        PrimaryKeyConstraint("customer", "week", name="pk_sums_customers"),
    )
    op.create_table(
        "sums_tiers",
        Column("week", BigInteger(), nullable=False),
        Column("customer", String(length=64), nullable=False),
        Column("menu_version", String(length=128), nullable=False),
        Column("tier", String(length=64), nullable=False),
        Column("chosen", Boolean(), nullable=False),
        Column("conversations", BigInteger(), nullable=False),
        PrimaryKeyConstraint("customer", "week", "menu_version", "tier", "chosen", name="pk_sums_tiers"),
    )
