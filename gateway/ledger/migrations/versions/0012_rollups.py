"""Running sums of the book that are read all the time; the bookkeeper adds them up from the book."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, PrimaryKeyConstraint, String

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "rollup_read",
        Column("chain", String(length=32), primary_key=True),
        Column("seq", BigInteger(), nullable=False),
    )
    op.create_table(
        "rollup_windows",
        Column("customer", String(length=64), nullable=False),
        Column("start", BigInteger(), nullable=False),
        Column("end", BigInteger(), nullable=False),
        Column("tokens_high", BigInteger(), nullable=False),
        Column("tokens_low", BigInteger(), nullable=False),
        Column("charge_high", BigInteger(), nullable=False),
        Column("charge_low", BigInteger(), nullable=False),
        Column("included", BigInteger(), nullable=False),
        PrimaryKeyConstraint("customer", "start", "end"),
    )
    op.create_table(
        "rollup_conversations",
        Column("customer", String(length=64), nullable=False),
        Column("name", String(length=128), nullable=False),
        Column("tier", String(length=64), nullable=True),
        Column("menu_version", String(length=128), nullable=True),
        Column("tokens", BigInteger(), nullable=False),
        Column("input_tokens", BigInteger(), nullable=False),
        Column("was_charged", Boolean(), nullable=False),
        Column("first", BigInteger(), nullable=False),
        Column("last", BigInteger(), nullable=False),
        Column("cap", BigInteger(), nullable=True),
        Column("ended_first", BigInteger(), nullable=True),
        Column("ended_last", BigInteger(), nullable=True),
        PrimaryKeyConstraint("customer", "name"),
    )
    op.create_index("ix_rollup_conversations_last", "rollup_conversations", ["last"])
