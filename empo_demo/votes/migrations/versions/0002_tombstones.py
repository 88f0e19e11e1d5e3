"""Tombstones: the ids of withdrawn rounds, so that no import, backup or push brings them back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tombstones",
        sa.Column("round_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_tombstones")),
    )
    op.create_index(op.f("ix_rounds_pushed_at"), "rounds", ["pushed_at"], unique=False)
