"""The ranking agrees with published values, with an independent fit, and with itself."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from empo_demo.board.ballots import Ballot
from empo_demo.board.ranking import Design, bootstrap, design_of, fit, information
from empo_demo.board.standing import clustered_rate, rank

TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
# Agresti, Categorical Data Analysis, 1987 season of the American League, Eastern division:
# (home wins, away wins) of the row's team at home against each other team in the order above.
GAMES = (
    ((4, 3), (4, 2), (4, 3), (6, 1), (4, 2), (6, 0)),
    ((3, 3), (4, 2), (4, 3), (6, 0), (6, 1), (4, 3)),
    ((2, 5), (4, 3), (2, 4), (4, 3), (4, 2), (6, 0)),
    ((3, 3), (5, 1), (2, 5), (4, 3), (4, 2), (6, 1)),
    ((5, 1), (2, 5), (3, 3), (4, 2), (5, 2), (6, 0)),
    ((2, 5), (3, 3), (3, 4), (4, 3), (4, 2), (2, 4)),
    ((2, 5), (1, 5), (1, 6), (2, 4), (1, 6), (3, 4)),
)
PUBLISHED = {
    "Boston": 1.107698,
    "Cleveland": 0.683853,
    "Detroit": 1.436408,
    "Milwaukee": 1.581356,
    "New York": 1.247618,
    "Toronto": 1.294485,
}


def baseball() -> list[Ballot]:
    ballots = []
    for home, games in zip(TEAMS, GAMES, strict=True):
        others = [team for team in TEAMS if team != home]
        for away, (won, lost) in zip(others, games, strict=True):
            for verdict in ["a"] * won + ["b"] * lost:
                number = str(len(ballots))
                ballots.append(Ballot(number, number, home, away, verdict, 10, 10))
    return ballots


def simulate(
    strengths: dict[str, float],
    *,
    voters: int = 60,
    each: int = 10,
    side: float = 0.0,
    length: float = 0.0,
    log_nu: float | None = None,
    spread: float = 0.0,
    seed: int = 0,
) -> list[Ballot]:
    """Votes of people who differ (`spread`) in how they see each contender."""
    rng = np.random.default_rng(seed)
    ids, ballots = sorted(strengths), []
    for voter in range(voters):
        taste = {name: strengths[name] + rng.normal(0, spread) for name in ids}
        for turn in range(each):
            a, b = rng.permutation(ids)[:2]
            words = rng.integers(5, 60, size=2)
            d = taste[a] - taste[b] + side + length * float(np.log2(words[0] / words[1]))
            chances = np.array([np.exp(d / 2), np.exp(-d / 2), np.exp(log_nu) if log_nu else 0.0])
            verdict = ("a", "b", "tie")[rng.choice(3, p=chances / chances.sum())]
            ballots.append(
                Ballot(f"{voter}-{turn}", str(voter), str(a), str(b), verdict, *map(float, words))
            )
    return ballots


def relative(design: Design, strengths: np.ndarray, to: str) -> dict[str, float]:
    base = strengths[design.ids.index(to)]
    return {name: float(s - base) for name, s in zip(design.ids, strengths, strict=True)}


def test_baseball_without_home_effect_gives_the_published_abilities() -> None:
    found = fit(design_of(baseball(), position=False), prior=0.0)
    ours = relative(found.design, found.strengths, "Baltimore")
    assert {name: ours[name] for name in PUBLISHED} == pytest.approx(PUBLISHED, abs=1e-5)


def test_baseball_gives_the_published_home_effect_and_its_error() -> None:
    found = fit(design_of(baseball()), prior=0.0)
    column = found.design.position
    assert column is not None
    model = np.linalg.inv(information(found.design, found.parameters, prior=0.0))
    assert found.parameters[column] == pytest.approx(0.302261, abs=1e-5)
    assert np.sqrt(model[column, column]) == pytest.approx(0.130944, abs=1e-5)


def test_the_prior_moves_a_full_season_by_less_than_a_hundredth() -> None:
    design = design_of(baseball())
    assert fit(design).strengths == pytest.approx(fit(design, prior=0.0).strengths, abs=0.01)


def test_davidson_ties_agree_with_an_independent_numeric_fit() -> None:
    ballots = simulate({"x": 0.5, "y": 0.0, "z": -0.5}, side=0.3, length=0.2, log_nu=-0.5)
    found = fit(design_of(ballots), prior=0.0)

    def negative(theta: np.ndarray) -> float:
        worth = np.exp([theta[0], theta[1], -theta[0] - theta[1]])
        total = 0.0
        for ballot in ballots:
            assert ballot.len_a and ballot.len_b
            tilt = np.exp(theta[2] + theta[3] * np.log2(ballot.len_a / ballot.len_b))
            a, b = worth["xyz".index(ballot.a)] * tilt, worth["xyz".index(ballot.b)]
            tie = np.exp(theta[4]) * np.sqrt(a * b)
            total -= np.log({"a": a, "b": b, "tie": tie}[ballot.verdict] / (a + b + tie))
        return total

    best = minimize(negative, np.zeros(5), method="BFGS", options={"gtol": 1e-5}).x
    assert found.strengths == pytest.approx([best[0], best[1], -best[0] - best[1]], abs=1e-3)
    assert found.design.position is not None and found.design.length is not None
    assert found.parameters[found.design.position] == pytest.approx(best[2], abs=1e-3)
    assert found.parameters[found.design.length] == pytest.approx(best[3], abs=1e-3)
    assert np.log(found.nu) == pytest.approx(best[4], abs=1e-3)


def test_side_and_length_effects_are_recovered() -> None:
    ballots = simulate({"x": 0.8, "y": 0.0}, voters=300, each=20, side=0.4, length=0.5)
    ranking = rank(ballots, samples=200)
    assert ranking.position and ranking.length
    assert ranking.position.interval[0] < 0.4 < ranking.position.interval[1]
    assert ranking.length.interval[0] < 0.5 < ranking.length.interval[1]
    assert ranking.length.interval[0] > 0 < ranking.position.interval[0]


def test_bootstrap_and_sandwich_agree() -> None:
    found = fit(design_of(simulate({"x": 0.5, "y": 0.0, "z": -0.5}, spread=0.8, log_nu=-1)))
    basis = found.design.basis
    spread = (bootstrap(found, 1000, seed=1)[:, : basis.shape[1]] @ basis.T).std(axis=0)
    assert spread == pytest.approx(found.strength_errors, rel=0.15)


def test_the_bootstrap_is_seeded() -> None:
    ballots = simulate({"x": 0.5, "y": 0.0}, voters=10, each=5)
    assert rank(ballots, samples=50) == rank(ballots, samples=50)
    assert rank(ballots, samples=50, seed=1) != rank(ballots, samples=50)


@pytest.mark.slow
def test_intervals_cover_the_truth_when_voters_differ() -> None:
    """Voters with tastes of their own: clustered intervals cover, those of single votes do not."""
    hits = plain = 0
    for seed in range(100):
        ballots = simulate({"x": 0.0, "y": 0.0}, voters=40, each=15, spread=1.0, seed=seed)
        clustered = fit(design_of(ballots))
        single = fit(design_of(ballots, clusters=range(len(ballots))))
        hits += abs(clustered.strengths[0]) < 1.96 * clustered.strength_errors[0]
        plain += abs(single.strengths[0]) < 1.96 * single.strength_errors[0]
    assert hits >= 88
    assert plain < 80


def test_real_judges_make_clustered_errors_a_third_larger(data_dir: Path) -> None:
    path = data_dir / "cems_pairs.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open(encoding="utf8") as file:
        rows = [(i // 15, row) for i, row in enumerate(csv.DictReader(file)) if row["w1"]]
    ballots = [
        Ballot(
            str(i),
            str(judge),
            row["s1"],
            row["s2"],
            "a" if float(row["w1"]) else "b" if float(row["w2"]) else "tie",
        )
        for i, (judge, row) in enumerate(rows)
    ]
    voters = fit(design_of(ballots, position=False), prior=0.0)
    votes = fit(design_of(ballots, position=False, clusters=range(len(ballots))), prior=0.0)
    ratio = voters.strength_errors / votes.strength_errors
    assert voters.design.voters == 303 and 1.25 < ratio.min() < ratio.max() < 1.7
    strongest = voters.design.ids[int(np.argmax(voters.strengths))]
    assert strongest == "London" and voters.nu > 0.2


def test_strengths_have_mean_zero_and_order_of_the_sides_does_not_matter() -> None:
    ballots = simulate({"x": 0.5, "y": 0.0, "z": -0.5}, side=0.3)
    turned = {"a": "b", "b": "a", "tie": "tie"}
    mirrored = [
        Ballot(v.round, v.voter, v.b, v.a, turned[v.verdict], v.len_b, v.len_a) for v in ballots
    ]
    here, there = fit(design_of(ballots)), fit(design_of(mirrored))
    assert here.strengths.mean() == pytest.approx(0.0, abs=1e-9)
    assert here.strengths == pytest.approx(there.strengths, abs=1e-6)
    assert here.effect(here.design.position) != there.effect(there.design.position)


def test_with_two_contenders_the_strength_is_the_log_odds_of_the_win_rate() -> None:
    verdicts = ["a"] * 60 + ["b"] * 40
    ballots = [Ballot(str(i), str(i), "x", "y", v) for i, v in enumerate(verdicts)]
    found = fit(design_of(ballots, position=False), prior=0.0)
    assert found.strengths[0] - found.strengths[1] == pytest.approx(np.log(1.5))


def test_an_unbeaten_contender_is_finite_but_for_its_upper_end() -> None:
    ballots = [
        Ballot(str(i), str(i % 7), *(("x", "y") if i % 2 else ("y", "x")), "a" if i % 2 else "b")
        for i in range(40)
    ]
    best = rank(ballots, samples=200).contenders[0]
    assert best.id == "x" and best.win_rate == 1.0
    assert best.win_rate_interval is not None and np.isfinite(best.win_rate_interval).all()
    assert best.win_rate_interval[0] < 1.0
    for interval in (best.strength_interval_bootstrap, best.strength_interval_sandwich):
        assert interval is not None and np.isfinite(interval[0]) and interval[1] == np.inf
    assert best.strength is not None and 2 < best.strength < 10


def test_both_bad_is_a_rate_of_its_own_and_never_a_tie() -> None:
    ballots = simulate({"x": 0.5, "y": 0.0}, voters=20, each=5)
    more = [*ballots, *(Ballot(f"bad{i}", str(i), "x", "y", "both_bad", 5, 9) for i in range(20))]
    before, after = rank(ballots, samples=50), rank(more, samples=50)
    assert after.ties.count == 0 and after.both_bad.count == 20
    assert after.both_bad.rate == pytest.approx(20 / 120)
    assert [one.strength for one in after.contenders] == [one.strength for one in before.contenders]


def test_an_effect_that_cannot_be_estimated_is_none() -> None:
    equal = [
        Ballot(str(i), str(i), *side, "a", 7, 7)
        for i, side in enumerate(itertools.product("xy", "xy"))
        if side[0] != side[1]
    ]
    assert rank(equal, samples=20).length is None
    fixed = [Ballot(str(i), str(i), "x", "y", "ab"[i % 2], i + 1, 9) for i in range(20)]
    assert rank(fixed, samples=20).position is None
    unknown = [Ballot(str(i), str(i), "x", "y", "a") for i in range(5)]
    assert rank(unknown, samples=20).length is None


def test_nothing_and_only_both_bad_give_a_ranking_without_numbers() -> None:
    assert rank([]).contenders == ()
    only = rank([Ballot("1", "v", "x", "y", "both_bad")])
    assert [one.strength for one in only.contenders] == [None, None]
    assert only.both_bad.rate == 1.0


def test_thirty_votes_end_hiding_and_three_hundred_are_settled() -> None:
    def status(count: int) -> set[str]:
        votes = [Ballot(str(i), str(i), "x", "y", "ab"[i % 2]) for i in range(count)]
        return {one.status for one in rank(votes, samples=0).contenders}

    assert [status(n) for n in (29, 30, 299, 300)] == [
        {"hidden"},
        {"preliminary"},
        {"preliminary"},
        {"settled"},
    ]


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_a_rate_of_nothing_or_all_keeps_an_interval_with_width(mean: float) -> None:
    rate, (low, high) = clustered_rate([mean] * 50, [str(i % 5) for i in range(50)])
    few = clustered_rate([mean] * 5, list("abcde"))[1]
    assert rate == mean and 0 <= low < high <= 1
    assert (low, high) == pytest.approx(few), "fifty votes of five voters say what five votes say"
