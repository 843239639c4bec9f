"""Options of operators' requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; requests that are queued have no options."""
    op.add_column(
        "requests",
        sa.Column("options", sa.Text, nullable=False, server_default=""),
    )
