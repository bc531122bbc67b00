"""Whether the upstream's figures contradict one another or the text, on each record. Records from before do not say."""

from alembic import op
from sqlalchemy import Column, String

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("usage_records", Column("usage_dispute", String(length=16), nullable=True))
