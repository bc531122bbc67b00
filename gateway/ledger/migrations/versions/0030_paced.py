"""How many streamed calls of a customer are in its week's pace, so that their bound holds however records are batched."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, String

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.create_table(
        "sums_paced",
        Column("week", BigInteger(), nullable=False),
        Column("customer", String(length=64), nullable=False),
        Column("calls", BigInteger(), nullable=False),
        PrimaryKeyConstraint("customer", "week"),
    )
