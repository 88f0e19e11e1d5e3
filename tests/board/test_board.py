"""The Board hides what is too little, counts what is there, and says effects in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from empo_demo.board.ballots import Ballot
from empo_demo.board.board import Board, board
from empo_demo.board.sentences import length_sentence, side_sentence
from empo_demo.board.standing import Effect
from empo_demo.contenders.roster import Contender, Roster

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROSTER = Roster("test", (Contender("x", "m", label="Model X"), Contender("y", "m", parent="x")))


def made(count: int, **extra: object) -> Board:
    ballots = [
        Ballot(
            str(i),
            str(i % 9),
            "x",
            "y",
            ("a", "a", "b", "tie", "both_bad")[i % 5],
            9 + i % 4,
            9,
            START + timedelta(hours=i),
            ratings={"a_natural": 60 + i % 9, "b_natural": 40},
        )
        for i in range(count)
    ]
    return board(ballots, ROSTER, samples=100)


def test_an_empty_board_has_no_figures_and_says_so() -> None:
    nothing = board([], ROSTER)
    assert nothing.ranking.contenders == () and nothing.table() == []
    assert len(nothing.lineage) == 2


def test_few_votes_stay_in_the_table_without_figures() -> None:
    few = made(20)
    assert all(one.status == "hidden" for one in few.ranking.contenders)
    assert all(row["win rate"] == "–" and "of 30" in row["note"] for row in few.table())


def test_the_board_counts_wins_losses_ties_and_days() -> None:
    full = made(100)
    meeting = full.matrix[0] if full.matrix[0].one == "x" else full.matrix[1]
    assert (meeting.wins, meeting.losses, meeting.ties, meeting.both_bad) == (40, 20, 20, 20)
    assert sum(count for _, count in full.days) == 100 and full.days[0] == ("2026-01-01", 12)
    assert full.table()[0]["contender"] == "Model X"
    assert full.table()[0]["note"] == "preliminary"
    assert full.sliders["x"]["natural"]["n"] == 100


def test_a_day_without_votes_is_a_day() -> None:
    votes = [Ballot(str(n), str(n), "x", "y", "a", 9, 9, START + timedelta(days=n)) for n in (0, 3)]
    days = board(votes, ROSTER, samples=10).days
    assert days == tuple((f"2026-01-0{n}", int(n in (1, 4))) for n in (1, 2, 3, 4))


def test_under_30_decided_votes_there_are_counts_only() -> None:
    """No share, no interval, no order by a strength that nobody can see."""
    few = made(12)
    said = " ".join(few.sentences)
    assert "2 of 12 votes ended in a tie." in said
    assert "2 of 12 votes found both replies bad." in said
    assert "95 %" not in said and "between equals" not in said
    assert few.tally("x") == (6, 2, 2) and few.tally("y") == (2, 6, 2)
    assert [one.id for group in few.groups() for one in group] == ["x", "y"]
    assert all(meeting.few for meeting in few.matrix)


def test_rows_are_sorted_by_the_rate_that_is_shown() -> None:
    """z met the strong only, so it is stronger than y and has the lower rate."""
    games = [("x", "z", "aabab"), ("x", "y", "aaaab"), ("y", "w", "aaaab")]
    ballots = [
        Ballot(f"{one}{other}{i}", f"v{i % 20}", one, other, verdicts[i % 5])
        for one, other, verdicts in games
        for i in range(100)
    ]
    ballots += [Ballot(f"n{i}", "v", "new", "x", "b") for i in range(3)]
    (group, unmet) = board(ballots, samples=50).groups()
    rates = [one.win_rate or 0 for one in group[:-1]]
    assert rates == sorted(rates, reverse=True) and not unmet
    assert group[-1].id == "new" and group[-1].status == "hidden"


def test_the_board_says_how_many_votes_are_needed() -> None:
    (said,) = (line for line in made(100).sentences if "are needed" in line)
    assert said.startswith("To tell 55% from 50%, about ") and "60 votes by 9 are here" in said


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (Effect(0.5, (-0.6, 1.6)), "Too few votes to tell whether the side matters."),
        (None, "cannot be said"),
        (Effect(0.4, (0.2, 0.6)), "People lean to the left (A)"),
        (Effect(-0.4, (-0.6, -0.2)), "People lean to the right (B)"),
        (Effect(0.1, (-0.2, 0.4)), "No sign"),
    ],
)
def test_the_side_effect_is_said_in_words(effect: Effect | None, words: str) -> None:
    assert words in side_sentence(effect)


def test_the_length_effect_is_said_as_a_share() -> None:
    assert "Longer replies win more" in length_sentence(Effect(1.0986, (0.5, 1.5)))
    assert "75%" in length_sentence(Effect(1.0986, (0.5, 1.5)))
    assert "Shorter" in length_sentence(Effect(-1, (-2, -0.5)))
    assert "Too few votes" in length_sentence(Effect(-1, (-3, 0.5)))


def test_arms_are_compared_where_several_were_shown() -> None:
    ballots = [
        Ballot(str(i), str(i), "x", "y", "ab"[i % 2], exposure=("chips", "nothing")[i % 3 == 0])
        for i in range(90)
    ]
    assert {row["shown before the vote"] for row in board(ballots, samples=0).arms} == {
        "chips",
        "nothing",
    }
    assert made(50).arms == ()
