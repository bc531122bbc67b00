"""Seals over the chain, with the leaves of what each covers, and the leaf that an erased row had."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, PrimaryKeyConstraint, String, UniqueConstraint

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "seals",
        Column("chain", String(length=32), nullable=False),
        Column("seq", BigInteger(), nullable=False),
        Column("time", BigInteger(), nullable=False),
        Column("first_seq", BigInteger(), nullable=False),
        Column("last_seq", BigInteger(), nullable=False),
        Column("root", String(length=64), nullable=False),
        Column("prev", String(length=64), nullable=False),
        Column("hash", String(length=64), nullable=False),
        Column("leaves", LargeBinary(), nullable=False),
        PrimaryKeyConstraint("chain", "seq"),
        UniqueConstraint("chain", "last_seq"),
    )
    op.add_column("erasures", Column("leaf", String(length=64), nullable=True))
