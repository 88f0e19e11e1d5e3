"""How many votes are needed: right where theory knows the answer, honest about busy voters."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from empo_demo.board.ballots import Ballot
from empo_demo.board.cli import register
from empo_demo.board.power import Setting, needed, power_at, rounded, setting_of
from empo_demo.errors import InvalidInput

app = typer.Typer()
register(app)


def test_independent_votes_need_as_many_as_the_textbook_says() -> None:
    """(1.960 + 0.842)² · ¼ / 0.05² is 785 (Fleiss, Levin and Paik 2003, section 2.2)."""
    found = needed(Setting(correlation=0.0, per_person=1.0))
    assert found.votes == pytest.approx(785, rel=0.08)
    assert found.reached >= 0.8


def test_people_of_one_taste_make_more_votes_needed() -> None:
    """By the design effect: of a geometric number of votes with mean 5, 1 + .07 · 8."""
    plain, busy = needed(Setting(correlation=0.0)), needed(Setting())
    assert busy.votes / plain.votes == pytest.approx(1.56, abs=0.2)


def test_nothing_to_tell_is_told_in_about_one_of_forty_boards() -> None:
    assert power_at(200, Setting(share=0.500001), 4000) == pytest.approx(0.025, abs=0.01)


def test_a_board_with_enough_votes_has_a_setting_of_its_own() -> None:
    draw = np.random.default_rng(0)
    tastes = draw.beta(2, 2, 100)  # a correlation of 1 / (2 + 2 + 1)
    ballots = [
        Ballot(
            f"{v}-{i}", f"v{v}", *(("x", "y") if i % 2 else ("y", "x")), "ab"[int((i % 2) == won)]
        )
        for v, taste in enumerate(tastes)
        for i, won in enumerate(draw.random(20) < taste)
    ]
    found = setting_of(ballots, Setting())
    assert found.per_person == 20 and found.correlation == pytest.approx(0.2, abs=0.07)
    assert setting_of(ballots[:200], Setting()) == Setting()


def test_the_command_prints_what_it_assumed() -> None:
    result = CliRunner().invoke(app, ["needed", "--share", "0.6", "--json"])
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["needed"]
    assert found["share"] == 0.6 and 200 < found["votes"] < 450 and found["people"] > 40


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"share": 0.5}, "share is 0.5"), ({"power": 1.0}, "power"), ({"per_person": 0.5}, "fewer")],
)
def test_what_no_votes_can_have_is_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        needed(Setting(**wrong))


def test_a_number_is_rounded_up_to_what_a_simulation_knows() -> None:
    assert [rounded(n) for n in (7, 99, 1211, 12_345)] == [7, 99, 1300, 13_000]
