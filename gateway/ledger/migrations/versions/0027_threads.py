"""Threads: what a caller may bring back of an answer, and the conversation it leads to."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, String

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.create_table(
        "conversation_threads",
        Column("customer", String(64), nullable=False),
        Column("thread", String(64), nullable=False),
        Column("conversation", String(128), nullable=False),
        Column("settled", BigInteger(), nullable=False),
        PrimaryKeyConstraint("customer", "thread"),
    )
    op.create_index("ix_conversation_threads_settled", "conversation_threads", ["settled"])
