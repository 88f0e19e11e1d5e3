"""Results in the order of what people said: the study, what goes with it, then our pair."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from empo_demo.evaluation.rated_replies import HUMAN_STUDY, read_human_study
from empo_demo.evaluation.results import ResultsData
from empo_demo.ui.tabs import human_study, results_tab
from empo_demo.ui.texts import texts_of

EN, DE = texts_of("en"), texts_of("de")


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    return read_human_study()


def pair(**entries: tuple[float, float, float, float]) -> ResultsData:
    """Our two models: (base, aligned, corrected p, deviation) by metric."""
    paired = [
        {
            "a": "base",
            "b": "aligned",
            "metric": name.replace("_", ".", 1),
            "n": 100,
            "mean_a": a,
            "mean_b": b,
            "difference": b - a,
            "interval": [b - a - 0.1, b - a + 0.1],
            "deviation": deviation,
            "p_holm": p,
        }
        for name, (a, b, p, deviation) in entries.items()
    ]
    return ResultsData(systems={"base": {}, "aligned": {}}, paired=paired)


def test_the_study_is_told_with_its_confounding_and_its_ceiling(study: dict[str, Any]) -> None:
    said = " ".join(human_study.said_sentences(study, EN))
    assert "135 people gave 2,025 ratings" in said and "the untuned base highest" in said
    assert "7 of the 10 comparisons are between different raters" in said
    goes = " ".join(human_study.metric_sentences(study["judged"], EN))
    assert "a stronger emotional reaction (+0.24)" in goes and "above 0.65" in goes
    assert "did not track people" in goes
    assert "more words" not in goes.partition("equal length")[2], "length is no finding"


def test_the_shipped_study_has_every_kind_of_measure_and_the_known_figures(
    study: dict[str, Any],
) -> None:
    """As a check of the plumbing: what an independent computation of the same rows gave."""
    rows = {row["metric"]: row for row in study["judged"]["metrics"]}
    for name, n, rho in (("length", 450, 0.192), ("question", 450, 0.024), ("overlap", 360, 0.161)):
        assert rows[name]["n"] == n and rows[name]["rho"] == pytest.approx(rho, abs=0.005)
    for name in ("likelihood.smollm2", "feeling.right", "feeling.opposite", "level.er", "valence"):
        assert rows[name]["rho"] is not None and rows[name]["length_held"]["rho"] is not None
    assert rows["length"]["length_held"]["rho"] is None, "freed of itself nothing is left"
    assert human_study.metrics_table(study["judged"], EN).count("is what is held") == 1


def test_no_sentence_says_what_the_figures_do_not(study: dict[str, Any]) -> None:
    other = copy.deepcopy(study)
    for row in other["judged"]["metrics"]:
        row["p_holm"] = 0.001 if row["metric"] == "diff-epitome.er" else 1.0
    goes = " ".join(human_study.metric_sentences(other["judged"], EN))
    assert "No number of ours" in goes and "went with people’s judgement in part" in goes
    for one in other["average"]["comparisons"]:
        one["p_holm"], one["raters_of_both"] = 1.0, 54
    said = " ".join(human_study.said_sentences(other, EN))
    assert "None of 10 comparisons stands" in said and "different raters" not in said


@pytest.mark.parametrize("say", [EN, DE], ids=["en", "de"])
def test_every_row_of_the_study_has_words_and_a_way_that_is_better(
    study: dict[str, Any], say: Any
) -> None:
    for row in study["judged"]["metrics"]:
        assert f"judge.{row['metric'].partition('likelihood.')[0] or 'likelihood'}" in say.words
    assert all(f"study.system.{name}" in say.words for name in human_study.SYSTEMS)
    drawn = human_study.cards(study, say)
    assert drawn.count("<circle") == 5 + 12 or drawn.count("<circle") == 5 + 11
    assert say("study.said") in drawn and "ceiling" in drawn


def test_a_name_from_a_file_is_text(study: dict[str, Any]) -> None:
    other = copy.deepcopy(study)
    other["judged"]["metrics"][0]["metric"] = "likelihood.<b>x"
    assert "<b>x" not in human_study.cards(other, EN)


def test_without_the_study_the_tab_is_that_of_our_pair() -> None:
    assert human_study.cards({}, EN) == ""
    assert read_human_study(HUMAN_STUDY.with_name("none.json")) == {}


def test_the_right_feeling_comes_first_and_the_headline_after_it() -> None:
    data = pair(
        length=(11.0, 13.0, 0.001, 5.0),
        feeling_right=(0.4, 0.5, 0.01, 0.5),
        feeling_opposite=(0.2, 0.1, 0.2, 0.5),
        level_er=(0.6, 0.7, 0.01, 0.7),
        **{"diff-epitome_er": (0.6, 0.5, 0.001, 1.0)},
    )
    said = results_tab.sentences(data, EN)
    assert "right feeling in 50%" in said[0] and "more, and it stands" in said[0]
    assert "opposite feeling in 10%" in said[1] and "no difference that stands" in said[1]
    assert "level 0.70 of 2" in said[2]
    assert "nearer to people in warmth" in said[3] and "did not track people" in said[3]
    assert "13 words" in said[4] and "no merit" in said[4]
    picture = results_tab.picture(data, EN)
    places = [picture.index(EN(f"metric.{name}")) for name in results_tab.DRAWN if name in picture]
    assert places == sorted(places)
    assert picture.index("right feeling ↑") < picture.index("diff-ER") < picture.index("neither")


def test_rows_that_were_not_measured_are_left_out() -> None:
    said = results_tab.sentences(pair(length=(11.0, 13.0, 0.001, 5.0)), EN)
    assert len(said) == 2 and "feeling" not in " ".join(said)
    assert results_tab.sentences(pair(), EN) == []
