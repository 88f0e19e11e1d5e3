"""What README.md and SECURITY.md claim for privacy and for the board, tried with an arena."""

from __future__ import annotations

import pytest
from sqlalchemy import func, inspect, select, update

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison
from empo_demo.board.ballots import Ballot, ballots_of_store
from empo_demo.board.board import board
from empo_demo.dialogue import Dialogue
from empo_demo.errors import NotAllowed
from empo_demo.votes.models import Base, Reply, Round, Vote
from empo_demo.votes.store import RateLimit
from tests.conftest import ROSTER, arena_at
from tests.promises.play import TEXT, cast, everything


@pytest.mark.keeps("not blind, not stored.")
def test_a_comparison_in_explore_is_not_stored(arena: Arena) -> None:
    before = everything(arena.store)
    list(arena.explore(Comparison(Dialogue().plus("user", TEXT)))[1])
    assert everything(arena.store) == before


@pytest.mark.keeps("**Data**: what is stored about you")
def test_a_visitor_is_shown_every_column_that_is_stored_of_their_rounds(arena: Arena) -> None:
    voter = arena.new_voter()
    cast(arena, voter)
    (record,) = arena.my_data(voter)
    for table, shown in ((Round, record["round"]), (Vote, record["vote"])):
        assert set(shown) == {column.key for column in inspect(table).columns}
    assert set(record["replies"][0]) == {column.key for column in inspect(Reply).columns}
    with arena.store.database.read() as session:
        others = {
            table.name: session.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
        }
        tables = set(inspect(session.connection()).get_table_names()) - {"alembic_version"}
    assert (
        tables
        == set(others)
        == {
            "voters",
            "rounds",
            "replies",
            "votes",
            "limits",
            "tombstones",
            "secrets",
        }
    ), "a new table needs a line in docs/privacy.md, and in Delete my data"


@pytest.mark.keeps("Attention checks, limits and clustered intervals protect the board.")
def test_one_who_votes_often_moves_the_board_as_one_and_within_limits(url: str) -> None:
    arena = arena_at(url, limit=RateLimit(per_voter=40, per_address=1000))
    busy = arena.new_voter()
    for _ in range(40):
        cast(arena, busy)
    with pytest.raises(NotAllowed, match="40 rounds"):
        cast(arena, busy)
    assert _width(one_voter=True) > 2 * _width(one_voter=False)
    voted = arena.my_votes(busy)[0]["round_id"]
    with arena.store.database.write() as session:
        session.execute(update(Round).where(Round.id == voted).values(check_side="a"))
    assert len(ballots_of_store(arena.store)) == 39, "a check ranks nobody"
    arena.store.close()


def _width(*, one_voter: bool) -> float:
    """The width of a win rate's interval after 40 equal votes, of one person or of forty."""
    mixed = [Ballot(f"m{n}", f"m{n}", "base", "aligned", "ab"[n % 2], 5, 9) for n in range(10)]
    same = [
        Ballot(f"s{n}", "busy" if one_voter else f"s{n}", "base", "aligned", "b", 5, 9)
        for n in range(40)
    ]
    interval = board([*mixed, *same], ROSTER, samples=200).ranking.contenders[0].win_rate_interval
    assert interval is not None
    return interval[1] - interval[0]
