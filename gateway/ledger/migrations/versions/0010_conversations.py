"""The cap of its conversation, and whether a subscription includes the one it began, on each record.

Records from before do not say.
"""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("usage_records", Column("conversation_cap_tokens", BigInteger(), nullable=True))
    op.add_column("usage_records", Column("conversation_is_included", Boolean(), nullable=True))
