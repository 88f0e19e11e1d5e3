"""When a comment was last written, as nothing of a vote is public before its newest text is a day
old."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("votes", sa.Column("comment_at", sa.DateTime(timezone=True), nullable=True))
