"""The kinds of the notices that a visitor's text got, so that it is judged once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rounds", sa.Column("notices", sa.JSON(none_as_null=True), nullable=True))
