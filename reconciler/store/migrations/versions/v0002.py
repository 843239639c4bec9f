"""Table of runtimes: an instance's record refers to its runtime by a digest."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; records that contain their runtime stay readable."""
    op.create_table(
        "runtimes",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.add_column(
        "instances",
        sa.Column("runtime", sa.String(64), nullable=False, server_default=""),
    )
