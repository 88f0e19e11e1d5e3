"""Every earlier schema, with data in it, comes up to the newest; the models are that schema."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.engine import make_url

from empo_demo.errors import StorageError
from empo_demo.votes.database import migrate
from empo_demo.votes.migrations import HEAD, REVISIONS
from empo_demo.votes.models import Base, Round
from empo_demo.votes.store import Store

VOTER = "INSERT INTO voters (id, created_at) VALUES ('v', '2026-01-02 03:04:05+00:00')"
ROUND = """INSERT INTO rounds (id, voter, state, created_at, ephemeral, consent, dialogue, origin,
    seed, decoding, system_prompt, roster, app_version, exposure, show_chips, show_plots, crisis,
    personal, identity, english) VALUES ('r', 'v', 'voted', '2026-01-02 03:04:05+00:00', false,
    'c', '[{"role": "user", "content": "Hi"}]', 'new', 7, '{}', '', 'tiny', '0.1.0', 'all', true,
    true, false, false, false, true)"""
REPLY = """INSERT INTO replies (round_id, side, contender, revision, strategy, seed, text)
    VALUES ('r', '{side}', 'base', 'rev', 'plain', 1, 'Oh.')"""
VOTE = """INSERT INTO votes (id, round_id, receipt, verdict, chosen, created_at, seconds,
    seconds_shown, fast, comment, continued) VALUES (1, 'r', 'ABCDE-FGHJK', 'a', 'a',
    '2026-01-02 03:05:05+00:00', 3.5, 4.5, false, '', 'd')"""


def old_database(url: str, revision: str) -> None:
    """A database as the app of that revision left it, with one vote."""
    target = make_url(url.replace("postgresql:", "postgresql+psycopg:"))
    engine = create_engine(target)
    if target.get_backend_name() == "sqlite":

        @event.listens_for(engine, "connect")
        def manual(connection: Any, _record: Any) -> None:
            connection.isolation_level = None

        @event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    with engine.begin() as connection:
        migrate(connection, to=revision)
        for statement in (VOTER, ROUND, REPLY.format(side="a"), REPLY.format(side="b"), VOTE):
            connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_earlier_schema_keeps_its_votes(url: str, revision: str) -> None:
    old_database(url, revision)
    store = Store.open(url)
    with store.database.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
    from empo_demo.votes.stats import count

    assert count(store).votes == {"a": 1} and count(store).exportable == 1
    store.close()


def test_votes_that_an_earlier_version_may_have_pushed_count_as_handed_over(url: str) -> None:
    """It could not tell whether a push that broke off had arrived, so it did not mark them."""
    old_database(url, "0003")
    store = Store.open(url)
    with store.database.write() as session:
        (found,) = session.scalars(select(Round))
        assert found.handed_over_until is not None and found.pushed_at is None
    store.erasure.bury({"r"})
    assert store.erasure.tombstones(published=True) == {"r"}
    store.close()


def test_the_migrations_end_at_what_the_models_say(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store = Store.open(url)
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    store.close()


def test_the_listed_revisions_are_those_of_the_scripts() -> None:
    from pathlib import Path

    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import empo_demo.votes.migrations as migrations

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert [s.revision for s in reversed(list(scripts.walk_revisions()))] == list(REVISIONS)


def test_a_database_of_a_newer_version_is_not_touched(url: str) -> None:
    store = Store.open(url)
    with store.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StorageError, match=r"9999.*Update the app"):
        Store.open(url)
