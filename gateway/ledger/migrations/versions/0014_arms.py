"""Experiments: menus that a share of new customers has in place of the published menu."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("publications", Column("arms", Text(), nullable=False, server_default="{}"))
