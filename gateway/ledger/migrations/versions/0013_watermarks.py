"""The last record of each bucket of the hot state: a bucket whose mark is lower has lost something."""

from alembic import op
from sqlalchemy import BigInteger, Column, String

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "watermarks",
        Column("bucket", String(length=2), primary_key=True),
        Column("seq", BigInteger(), nullable=False),
    )
