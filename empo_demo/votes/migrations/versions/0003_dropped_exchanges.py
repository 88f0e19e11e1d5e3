"""How many of a long dialogue's first exchanges the models did not read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("dropped_exchanges", sa.Integer(), nullable=True))
