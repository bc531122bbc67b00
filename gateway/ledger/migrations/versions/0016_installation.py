"""The permanent facts of an installation: the id that ledger, Redis and data directory share, and its currency."""

from alembic import op
from sqlalchemy import Column, String

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("installation", Column("identity", String(length=40), nullable=True))
    op.add_column("installation", Column("currency", String(length=3), nullable=True))
