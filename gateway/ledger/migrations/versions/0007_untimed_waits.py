"""Waits until the time-outs of clients; all sums are added up anew from the book, which still has every wait."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0007"
down_revision = "0006"

SUMS = ("read", "going", "lengths", "customers", "tiers", "ages", "pace", "aside")


def upgrade() -> None:
    for name in SUMS:
        op.execute(f"DELETE FROM sums_{name}")  # noqa: S608
    with op.batch_alter_table("sums_going") as going:
        going.add_column(Column("untimed_ms", BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("sums_customers") as customers:
        customers.add_column(Column("untimed_disconnects", BigInteger(), nullable=False, server_default="0"))
        customers.add_column(Column("untimed_waited_ms", BigInteger(), nullable=False, server_default="0"))
