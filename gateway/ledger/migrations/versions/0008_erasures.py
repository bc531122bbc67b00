"""Customers who were erased, and of each row of theirs a digest of what is left of it."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, String

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("customers", Column("erased", BigInteger(), nullable=True))
    op.create_table(
        "erasures",
        Column("chain", String(length=32), nullable=False),
        Column("seq", BigInteger(), nullable=False),
        Column("at", BigInteger(), nullable=False),
        Column("digest", String(length=64), nullable=False),
        PrimaryKeyConstraint("chain", "seq"),
    )
