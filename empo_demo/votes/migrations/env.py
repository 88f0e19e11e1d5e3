"""Alembic's entry. It runs on a connection that `empo_demo.votes.database` opened."""

from __future__ import annotations

from alembic import context

from empo_demo.votes.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
