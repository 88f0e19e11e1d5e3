"""Ranks that the votes cannot settle: who won everything, and groups that never met."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from empo_demo.board.ballots import Ballot
from empo_demo.board.board import Board, board
from empo_demo.board.cli import register
from empo_demo.board.standing import Standing, rank
from empo_demo.ui.tabs import board_tab
from empo_demo.ui.texts import texts_of

app = typer.Typer()
register(app)


def votes(*games: tuple[str, str, str], count: int = 200, voters: int = 25) -> list[Ballot]:
    """`count` votes on the games (one, other, verdicts in turn), the sides in turn, too."""
    found: list[Ballot] = []
    for one, other, verdicts in games:
        for i in range(count):
            verdict = verdicts[i // 2 % len(verdicts)]
            sides = (one, other)
            if i % 2:
                sides, verdict = (other, one), {"a": "b", "b": "a"}.get(verdict, verdict)
            number = len(found)
            found.append(Ballot(f"r{number}", f"v{number % voters}", *sides, verdict))
    return found


def standings(ballots: list[Ballot]) -> dict[str, Standing]:
    return {one.id: one for one in rank(ballots, samples=100).contenders}


def ends(one: Standing) -> tuple[bool, bool]:
    """Whether the strength has a lower and an upper end, in both kinds of intervals alike."""
    boot, sandwich = one.strength_interval_bootstrap, one.strength_interval_sandwich
    assert boot is not None and sandwich is not None
    found = [tuple(map(math.isfinite, interval)) for interval in (boot, sandwich)]
    assert found[0] == found[1]
    return found[0][0], found[0][1]


BOTH, NO_UPPER, NO_LOWER, NONE = (True, True), (True, False), (False, True), (False, False)
GAMES: dict[str, tuple[list[Ballot], dict[str, tuple[bool, bool]]]] = {
    "one won everything": (votes(("x", "y", "a")), {"x": NO_UPPER, "y": NO_LOWER}),
    "one lost everything": (
        votes(("x", "y", "ab"), ("x", "z", "a"), ("y", "z", "a")),
        {"x": NO_UPPER, "y": NO_UPPER, "z": NO_LOWER},
    ),
    "two that beat each other beat the rest": (
        votes(("a", "b", "ab"), ("c", "d", "aab"), ("a", "c", "a"), ("b", "d", "a")),
        {"a": NO_UPPER, "b": NO_UPPER, "c": NO_LOWER, "d": NO_LOWER},
    ),
    "a ladder": (
        votes(("a", "b", "a"), ("b", "c", "a")),
        {"a": NO_UPPER, "b": NONE, "c": NO_LOWER},
    ),
    "a single vote": (votes(("x", "y", "a"), count=1), {"x": NO_UPPER, "y": NO_LOWER}),
    "one that only tied": (
        votes(("x", "y", "aab"), ("x", "z", "t")),
        {"x": BOTH, "y": BOTH, "z": BOTH},
    ),
    "nothing but ties": (votes(("x", "y", "t")), {"x": NONE, "y": NONE}),
    "a circle": (
        votes(("x", "y", "a"), ("y", "z", "a"), ("z", "x", "a")),
        {"x": BOTH, "y": BOTH, "z": BOTH},
    ),
    "one loss is enough": (
        [*votes(("x", "y", "a")), Ballot("last", "v0", "x", "y", "b")],
        {"x": BOTH, "y": BOTH},
    ),
    "one tie is enough": (
        [*votes(("x", "y", "a")), Ballot("last", "v0", "x", "y", "tie")],
        {"x": BOTH, "y": BOTH},
    ),
    "a win and both bad": (
        [*votes(("x", "y", "a")), Ballot("last", "v0", "x", "y", "both_bad")],
        {"x": NO_UPPER, "y": NO_LOWER},
    ),
    "won everything in one of two groups": (
        votes(("w", "x", "a"), ("y", "z", "ab")),
        {"w": NO_UPPER, "x": NO_LOWER, "y": BOTH, "z": BOTH},
    ),
}
for _ballots, _ in GAMES.values():
    _ballots[:] = [
        Ballot(one.round, one.voter, one.a, one.b, "tie") if one.verdict == "t" else one
        for one in _ballots
    ]


@pytest.mark.parametrize("name", GAMES)
def test_a_strength_has_the_ends_that_the_votes_give_it(name: str) -> None:
    ballots, expected = GAMES[name]
    found = standings(ballots)
    assert {name: ends(one) for name, one in found.items()} == expected
    for one in found.values():
        assert (one.separation is not None) == (expected[one.id] != BOTH)
        low, high = one.strength_interval_bootstrap or (0.0, 0.0)
        assert one.strength is not None and low - 1e-9 <= one.strength <= high + 1e-9


def test_the_limit_of_an_unbeaten_one_is_what_the_voters_exclude() -> None:
    """25 voters who all chose x: with 97.5 % they would not if its chance were below .863."""
    found = standings(votes(("x", "y", "a"), count=400))
    low = (found["x"].strength_interval_bootstrap or (0.0, 0.0))[0]
    chance = 0.025 ** (1 / 25)
    assert 2 * low == pytest.approx(math.log(chance / (1 - chance)), abs=0.02)
    more = standings(votes(("x", "y", "a"), count=4000))
    assert (more["x"].strength_interval_bootstrap or (0.0, 0.0))[0] == pytest.approx(low, abs=0.02)
    people = standings(votes(("x", "y", "a"), count=400, voters=400))
    assert (people["x"].strength_interval_bootstrap or (0.0, 0.0))[0] > low + 1
    one = standings(votes(("x", "y", "a"), count=1))
    assert (one["x"].strength_interval_bootstrap or (0.0, 0.0))[0] < 0, "one vote excludes little"


def test_groups_that_never_met_are_ranked_apart() -> None:
    ballots = votes(("y", "z", "aab"), ("w", "x", "aaab"), ("x", "u", "ab"))
    found = rank(ballots, samples=50)
    assert [[one.id for one in group] for group in found.groups] == [["w", "u", "x"], ["y", "z"]]
    assert [one.group for one in found.contenders] == [0, 0, 0, 1, 1]
    alone = {
        one.id: one.strength
        for own in (ballots[:200], ballots[200:])
        for one in rank(own, samples=0).contenders
    }
    for group in found.groups:
        strengths = [one.strength or 0.0 for one in group]
        assert sum(strengths) == pytest.approx(0, abs=1e-9)
        assert strengths == pytest.approx([alone[one.id] for one in group], abs=0.02)


def test_one_without_a_vote_that_compares_is_in_no_group() -> None:
    ballots = [*votes(("x", "y", "ab")), *votes(("x", "z", "q"), count=30)]
    ballots = [
        Ballot(one.round, one.voter, one.a, one.b, "both_bad") if one.verdict == "q" else one
        for one in ballots
    ]
    found = rank(ballots, samples=20)
    assert [one.id for one in found.contenders] == ["x", "y", "z"]
    assert found.contenders[2].group is None and found.contenders[2].strength is None
    assert len(found.groups) == 1


def test_a_side_that_won_every_vote_has_no_upper_limit() -> None:
    ballots = [
        Ballot(str(i), str(i % 20), *(("x", "y") if i % 2 else ("y", "x")), "a") for i in range(200)
    ]
    effect = rank(ballots, samples=50).position
    assert effect is not None and effect.interval[0] > 1 and effect.interval[1] == math.inf
    assert effect.as_json()["interval"][1] is None


def run(tmp_path: Path, ballots: list[Ballot], *more: str) -> str:
    file = tmp_path / "votes.csv"
    rows = [f"{one.round},{one.voter},{one.a},{one.b},{one.verdict}" for one in ballots]
    file.write_text("\n".join(["round,voter,a,b,verdict", *rows]), encoding="utf8")
    ran = CliRunner().invoke(
        app, ["rank", "--input", str(file), "--samples", "50", *more], env={"COLUMNS": "200"}
    )
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_json_has_null_where_there_is_no_end(tmp_path: Path) -> None:
    said = run(tmp_path, GAMES["won everything in one of two groups"][0], "--json")
    assert "Infinity" not in said
    found: dict[str, Any] = json.loads(said)
    assert found["groups"] == [["w", "x"], ["y", "z"]]
    best = found["contenders"][0]
    assert best["strength_interval_bootstrap"][1] is None and best["separated"] == "won"
    assert best["strength_interval_bootstrap"][0] > 0 and best["group"] == 0
    assert found["contenders"][2]["separated"] is None and found["contenders"][2]["group"] == 1


def test_the_table_says_it_in_words(tmp_path: Path) -> None:
    said = run(tmp_path, GAMES["won everything in one of two groups"][0])
    assert "at least +0.9" in said and "at most -0.9" in said and "won every vote" in said
    assert "These groups never met: w, x; y, z. Strengths and win rates compare within" in said
    assert "w won every vote: its strength is at least +0.9" in said and "no upper end" in said
    assert "+3." not in said, "the number that only the prior set"
    plain = run(tmp_path, votes(("x", "y", "ab")))
    assert "never met" not in plain and "every vote" not in plain and "at least" not in plain


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_board_shows_groups_apart_and_open_ends(language: str) -> None:
    say = texts_of(language)
    found = board(GAMES["won everything in one of two groups"][0], samples=50)
    page = board_tab.drawn(lambda: found, say)
    assert page.count('<ul class="standings">') == 2
    words = {
        "en": [
            "Group 1, which never met",
            "at least +0.9",
            "w won every vote: ",
            "never met: w, x; ",
        ],
        "de": ["Gruppe 2, die den anderen nie", "mindestens +0", "w: jede Stimme gewonnen; "],
    }[language]
    assert all(word in page for word in words), page
    alone = board_tab.drawn(lambda: board(votes(("x", "y", "ab")), samples=20), say)
    assert alone.count('<ul class="standings">') == 1 and "Grupp" not in alone


@pytest.mark.parametrize("name", GAMES)
def test_every_sentence_of_the_board_on_limits_is_translated(name: str) -> None:
    found: Board = board(GAMES[name][0], samples=20)
    german = texts_of("de")
    assert [line for line in found.sentences if german.own(line) == line] == []
    notes = {row["note"] for row in found.table()} | {row["strength 95 %"] for row in found.table()}
    assert [one for one in notes if any(c.isalpha() for c in one) and german.own(one) == one] == []


def test_markup_in_a_name_is_escaped_in_the_sentences() -> None:
    found = board(votes(("<b>x", "y", "a")), samples=20)
    page = board_tab.drawn(lambda: found, texts_of("en"))
    assert "&lt;b&gt;x won every vote" in page and "<b>x" not in page
