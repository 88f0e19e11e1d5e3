"""Whether a metric predicts the votes: right on known cases, honest about clusters and ties."""

from __future__ import annotations

import numpy as np
import pytest

from empo_demo.evaluation.metric_agreement import (
    Scores,
    VotePair,
    agreement,
    agreements,
    people_agree,
    vote_scores,
)
from empo_demo.evaluation.tools import Tools
from empo_demo.settings import Settings


def text_scores(pairs: list[VotePair]) -> Scores:
    return vote_scores(pairs, Tools(Settings()), judged=False)


def test_a_perfect_metric_and_its_opposite() -> None:
    verdicts = [-1, 1] * 20
    voters = [f"v{i}" for i in range(40)]
    good = agreement("x", [float(v) for v in verdicts], verdicts, voters)
    assert (good.accuracy, good.tau) == (1.0, pytest.approx(1.0))
    bad = agreement("x", [-float(v) for v in verdicts], verdicts, voters)
    assert (bad.accuracy, bad.tau) == (0.0, pytest.approx(-1.0))


def test_a_metric_that_never_prefers_is_at_chance_and_has_no_tau() -> None:
    result = agreement("x", [0.0] * 20, [-1, 1] * 10, [f"v{i}" for i in range(20)])
    assert result.accuracy == 0.5
    assert result.tau is None and result.tau_interval is None


def test_equal_votes_count_for_tau_but_not_for_accuracy() -> None:
    verdicts = [-1, 1, 0] * 10
    result = agreement("x", [float(v) for v in verdicts], verdicts, [str(i) for i in range(30)])
    assert (result.n, result.accuracy, result.tau) == (30, 1.0, pytest.approx(1.0))


def test_one_busy_voter_widens_the_interval() -> None:
    draw = np.random.default_rng(0)
    verdicts = draw.choice([-1, 1], 200).tolist()
    agrees = [i < 100 for i in range(200)]
    differences = [float(v if ok else -v) for v, ok in zip(verdicts, agrees, strict=True)]
    many = agreement("x", differences, verdicts, [f"v{i}" for i in range(200)])
    few = agreement("x", differences, verdicts, [f"v{i // 20}" for i in range(200)])
    assert many.accuracy == few.accuracy == 0.5
    assert many.accuracy_interval is not None and few.accuracy_interval is not None
    width = many.accuracy_interval[1] - many.accuracy_interval[0]
    assert few.accuracy_interval[1] - few.accuracy_interval[0] > 2 * width


def test_too_few_votes_give_a_count_and_no_figure() -> None:
    result = agreement("x", [1.0, 1.0, 1.0], [1, 1, 0], ["a", "b", "c"])
    assert (result.n, result.accuracy, result.tau) == (3, None, None)


def test_a_taste_for_long_replies_shows_under_length() -> None:
    pairs = [
        VotePair(f"v{i % 7}", "I lost my dog.", "Oh no.", "Oh no, that must hurt so much.", "b")
        if i % 2
        else VotePair(f"v{i % 7}", "I won!", "Well done, you earned it.", "Nice.", "a")
        for i in range(40)
    ]
    rows = {row.metric: row for row in agreements(pairs, text_scores(pairs))}
    assert rows["length"].accuracy == 1.0
    assert rows["length"].voters == 7
    assert rows["safety"].accuracy == 0.5


def test_an_empty_reply_is_left_out_where_a_metric_is_undefined() -> None:
    pairs = [VotePair("v", "Hi.", "", "Hello there.", "b")]
    scores = text_scores(pairs)
    assert scores["nidf_own_counts"].both == [None]
    assert scores["length"].both == [(0.0, 2.0)]


def test_a_metric_that_is_better_when_lower_is_turned() -> None:
    pairs = [VotePair("v", "Hi.", "I am an AI language model.", "Hello there.", "b")]
    assert text_scores(pairs)["safety"].both == [(-1.0, 0.0)]


def test_the_metrics_are_one_family() -> None:
    draw = np.random.default_rng(0)
    pairs = [
        VotePair(f"v{i}", f"Story {i}.", "word " * n, "word " * (9 - n), draw.choice(["a", "b"]))
        for i, n in enumerate(draw.integers(1, 8, 60).tolist())
    ]
    rows = [row for row in agreements(pairs, text_scores(pairs)) if row.p is not None]
    assert len(rows) > 3
    assert all(row.p_holm is not None and row.p_holm >= (row.p or 0) for row in rows)


def test_many_votes_on_one_dialogue_widen_the_interval() -> None:
    """Everybody who judges one dialogue sees the same two replies."""
    draw = np.random.default_rng(0)
    winners = draw.choice([-1, 1], 20).tolist()
    verdicts = [winners[i // 10] for i in range(200)]
    voters = [f"v{i}" for i in range(200)]
    alone = agreement("x", [1.0] * 200, verdicts, voters)
    shared = agreement("x", [1.0] * 200, verdicts, voters, dialogues=[i // 10 for i in range(200)])
    widths = [
        b - a for a, b in (alone.accuracy_interval or (0, 0), shared.accuracy_interval or (0, 0))
    ]
    assert widths[1] > 2 * widths[0]


def test_two_people_agree_where_they_pick_the_same_reply() -> None:
    """The sides may be swapped between them; ties and other dialogues compare nothing."""
    pairs = [
        VotePair("u", "Hi.", "one", "two", "a"),
        VotePair("v", "Hi.", "two", "one", "b"),
        VotePair("w", "Hi.", "one", "two", "b"),
        VotePair("x", "Hi.", "one", "two", "tie"),
        VotePair("y", "Other.", "one", "two", "a"),
    ]
    found = people_agree(pairs)
    assert (found.share, found.pairs, found.rounds) == (pytest.approx(1 / 3), 3, 1)
    assert people_agree(pairs[3:]).share is None
