"""Which number goes with ratings: found where it is planted, honest about the ceiling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from empo_demo.board.rating_table import Columns
from empo_demo.cli import app
from empo_demo.engine.predictions import Prediction, Predictions
from empo_demo.errors import DataError
from empo_demo.evaluation import predictors, rated_replies
from empo_demo.evaluation.predictors import columns, likelihood, overlap
from empo_demo.evaluation.tools import Tools
from empo_demo.settings import ASSETS, Settings

SYSTEMS = ("short", "long", "human")


def files(folder: Path, *, longer_is_better: float = 3.0) -> tuple[Path, Path]:
    """Thirty dialogues, three systems, three raters of a reply, who like words."""
    draw = np.random.default_rng(0)
    table = ["item,system,rater,warm,clear,fine"]
    lines = []
    for item in range(30):
        replies = {}
        for system in SYSTEMS:
            number = int(draw.integers(3, 12)) + 6 * (system == "long")
            replies[system] = " ".join(f"word{draw.integers(50)}" for _ in range(number))
            for rater in range(3):
                level = 40 + longer_is_better * number + draw.normal(0, 8)
                table.append(f"{item},{system},r{(item + rater) % 9},{level:.1f},{level + 1:.1f},1")
        dialogue = [{"role": "user", "content": f"Story {item}."}]
        lines.append(json.dumps({"item": item, "dialogue": dialogue, "replies": replies}))
    ratings, texts = folder / "ratings.csv", folder / "texts.jsonl"
    ratings.write_text("\n".join(table) + "\n", encoding="utf8")
    texts.write_text("\n".join(lines) + "\n", encoding="utf8")
    return ratings, texts


def stands(folder: Path, **options: Any) -> dict[str, rated_replies.Standing]:
    found = rated_replies.read_rated(*files(folder, **options), Columns())
    made = columns(found.predictions, Tools(Settings()), judged=False)
    return {one.metric: one for one in rated_replies.standings(found, made)}


def test_what_raters_like_is_found_overall_and_within(tmp_path: Path) -> None:
    found = stands(tmp_path)
    length = found["length"]
    assert (length.overall.rho or 0) > 0.8 and (length.p_holm or 0) < 0.01
    assert (length.within_dialogues.rho or 0) > 0.6 and (length.within_systems.rho or 0) > 0.6
    assert length.length_held.rho is None, "with the length held, the length says nothing"
    assert length.overall.n == 90 and found["overlap"].overall.n == 60, "its own rows are left out"
    assert set(length.scales) == {"warm", "clear"}, "a yes or no is no scale"


def test_what_raters_do_not_care_for_is_not_found(tmp_path: Path) -> None:
    length = stands(tmp_path, longer_is_better=0.0)["length"]
    assert abs(length.overall.rho or 0) < 0.25 and (length.p_holm or 0) > 0.05


def test_the_ceiling_is_the_root_of_the_reliability(tmp_path: Path) -> None:
    sure = rated_replies.people_of(rated_replies.read_rated(*files(tmp_path), Columns()))
    noise = rated_replies.people_of(
        rated_replies.read_rated(*files(tmp_path, longer_is_better=0.0), Columns())
    )
    assert sure.icc_k is not None and sure.ceiling == pytest.approx(sure.icc_k**0.5)
    assert sure.ceiling > 0.8 > (noise.ceiling or 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"item": 1, "dialogue": []}', r"texts.jsonl:1: it cannot be used"),
        (
            '{"item": 1, "dialogue": [{"role": "assistant", "content": "Hi."}], "replies": {}}',
            r"texts.jsonl:1: the dialogue does not end with the user's turn",
        ),
        (
            '{"item": "x", "dialogue": [{"role": "user", "content": "Hi"}], "replies": {"a": "b"}}',
            "No reply of .* was rated",
        ),
    ],
)
def test_texts_that_do_not_fit_are_one_line(tmp_path: Path, line: str, said: str) -> None:
    ratings, texts = files(tmp_path)
    texts.write_text(line + "\n", encoding="utf8")
    with pytest.raises(DataError, match=said):
        rated_replies.read_rated(ratings, texts, Columns())


def test_a_new_predictor_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def letters(given: Predictions, _: Tools) -> list[float | None]:
        return [float(len(text)) for text in given.responses]

    new = predictors.Extra("letters", "more letters", letters)
    monkeypatch.setattr(predictors, "EXTRA", (*predictors.EXTRA, new))
    assert (stands(tmp_path)["letters"].overall.rho or 0) > 0.7


def test_the_overlap_is_jaccards() -> None:
    assert overlap("I don't know.", "You DON'T know it.") == pytest.approx(2 / 5)
    assert overlap("…", "!") is None


@pytest.mark.slow
def test_a_likelihood_prefers_the_likelier_reply() -> None:
    rows = [
        Prediction(("I lost my dog.",), "I lost my dog.", "", reply)
        for reply in ("I am so sorry to hear that.", "Purple the of engine seven quickly lamp.", "")
    ]
    found = likelihood(ASSETS / "tiny" / "base", Predictions("x", Path("x"), tuple(rows)))
    good, bad, none = found.values
    assert none is None and good is not None and bad is not None and good > bad
    with pytest.raises(DataError, match=r"no config\.json"):
        likelihood(Path("nowhere"), Predictions("x", Path("x"), tuple(rows)))


def test_ratings_without_texts_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "agreement", "--ratings", str(tmp_path / "x")])
    assert result.exit_code != 0 and "belong together" in str(result.exception)


@pytest.mark.slow
def test_the_plumbing_gives_the_known_figures_of_the_papers_study(data_dir: Path) -> None:
    found = rated_replies.read_rated(
        data_dir / "empo_ratings.csv.gz", data_dir / "empo_rated_texts.jsonl.gz", Columns()
    )
    made = columns(found.predictions, Tools(Settings()), judged=False)
    known = {one.metric: one.overall for one in rated_replies.standings(found, made)}
    for metric, n, rho in (
        ("length", 450, 0.192),
        ("question", 450, 0.024),
        ("overlap", 360, 0.161),
    ):
        assert known[metric].n == n and known[metric].rho == pytest.approx(rho, abs=0.005)
