"""A round is handed over to the data set before it is published.

Earlier versions could not tell whether a push that broke off had arrived. So each vote that was due
counts as handed over, and each withdrawn round is looked for in the data set once more.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.add_column("rounds", sa.Column("handed_over_until", moment, nullable=True))
    rounds = sa.table(
        "rounds",
        sa.column("id", sa.String),
        sa.column("pushed_at", moment),
        sa.column("handed_over_until", moment),
    )
    votes = sa.table("votes", sa.column("round_id", sa.String), sa.column("created_at", moment))
    at = datetime.now(UTC)
    due = sa.select(votes.c.round_id).where(votes.c.created_at < at - timedelta(hours=24))
    op.execute(
        rounds.update()
        .where(rounds.c.pushed_at.is_(None), rounds.c.id.in_(due))
        .values(handed_over_until=at)
    )
    op.execute(
        sa.table("tombstones", sa.column("published", sa.Boolean)).update().values(published=True)
    )
