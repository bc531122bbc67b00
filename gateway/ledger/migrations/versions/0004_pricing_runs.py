"""Runs that recompute the menu: what was asked, how far they have come, what they found."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "pricing_runs",
        Column("id", String(length=64), nullable=False),
        Column("state", String(length=16), nullable=False),
        Column("created", BigInteger(), nullable=False),
        Column("actor", String(length=64), nullable=False),
        Column("asked", Text(), nullable=False),
        Column("attempt", Integer(), nullable=False),
        Column("started", BigInteger(), nullable=True),
        Column("beat", BigInteger(), nullable=True),
        Column("finished", BigInteger(), nullable=True),
        Column("doing", String(length=64), nullable=True),
        Column("percent", Integer(), nullable=False),
        Column("reason", Text(), nullable=True),
        Column("result", Text(), nullable=True),
        Column("draft", Text(), nullable=True),
        Column("published", BigInteger(), nullable=True),
        PrimaryKeyConstraint("id", name="pk_pricing_runs"),
    )
    op.create_index("ix_pricing_runs_created_id", "pricing_runs", ["created", "id"], unique=False)
