"""Lengths by customer; all sums are added up anew from the book, which still has every answer."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, String

revision = "0011"
down_revision = "0010"

SUMS = ("read", "going", "lengths", "customers", "tiers", "ages", "pace", "aside")


def upgrade() -> None:
    for name in SUMS:
        op.execute(f"DELETE FROM sums_{name}")  # noqa: S608
    op.create_table(
        "sums_own_lengths",
        Column("week", BigInteger(), nullable=False),
        Column("customer", String(length=64), nullable=False),
        Column("menu_version", String(length=128), nullable=False),
        Column("tier", String(length=64), nullable=False),
        Column("even", Integer(), nullable=False),
        Column("bin", Integer(), nullable=False),
        Column("observed", BigInteger(), nullable=False),
        Column("censored", BigInteger(), nullable=False),
        PrimaryKeyConstraint("customer", "week", "menu_version", "tier", "even", "bin"),
    )
