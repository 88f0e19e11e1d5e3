"""Scoring reproduces the published sample, pairs by row, and never drops or hides anything."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from empo_demo.errors import DataError, InvalidInput
from empo_demo.evaluation.score import Scores, metric_names, score_files, table_lines
from empo_demo.evaluation.tools import Tools
from empo_demo.settings import Settings

LIGHT = ["length", "distinct", "vad", "nidf", "diff-epitome", "safety"]
MODEL_FREE = ["length", "distinct", "vad", "nidf", "safety"]

DIALOGUES = [
    ("I lost my dog today.", "Oh no, I am so sorry."),
    ("We won the cup!", "Congratulations to you all!"),
    ("My sister is moving away.", "You will miss her, I guess."),
    ("I passed the exam.", "Great work, be proud."),
]


def write(path: Path, responses: list[str], dialogues: list[tuple[str, str]] | None = None) -> Path:
    pairs = zip(dialogues or DIALOGUES, responses, strict=True)
    lines = (
        json.dumps({"conv_id": str(i), "context": [u], "reference": r, "response": text})
        for i, ((u, r), text) in enumerate(pairs)
    )
    path.write_text("".join(line + "\n" for line in lines))
    return path


def score(*paths: Path, metrics: list[str] | None = None, **settings: Any) -> Scores:
    return score_files(list(paths), metrics or MODEL_FREE, Tools(Settings(**settings)))


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, float):
        yield value


@pytest.fixture(scope="module")
def published(data_dir: Path) -> dict[str, Any]:
    file = data_dir / "empo_predictions_sample.csv.gz"
    return score(file, metrics=LIGHT).systems["empo_predictions_sample"].figures


def test_the_published_sample_has_the_published_diversity(published: dict[str, Any]) -> None:
    assert published["n"] == 300
    assert round(published["words_mean"], 4) == 13.5133
    corpus, each = published["distinct"]["corpus"], published["distinct"]["per_response"]
    # The published .656366 is cut, not rounded, from 2464/3754.
    assert [corpus[n] for n in "123"] == pytest.approx([0.239763, 0.656366, 0.865663], abs=1e-6)
    assert [round(each[n], 6) for n in "123"] == [0.961645, 0.998215, 0.999558]


def test_the_published_sample_has_the_published_epitome_figures(published: dict[str, Any]) -> None:
    assert {m: round(v, 6) for m, v in published["diff_epitome"].items()} == {
        "er": 0.593333,
        "ex": 0.72,
        "ip": 0.88,
    }
    assert published["epitome_source"] == "stored in the file"


def test_the_human_reply_would_be_a_perfect_system(tmp_path: Path) -> None:
    file = write(tmp_path / "human.jsonl", [reference for _, reference in DIALOGUES])
    figures = score(file).systems["human"].figures
    assert figures["words_mean"] == pytest.approx((6 + 4 + 6 + 4) / 4)


def test_vad_is_the_plain_mean_of_absolute_differences(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.tsv"
    lexicon.write_text("dog\t0.7\t0.4\t0.4\nwon\t0.9\t0.8\t0.7\nsad\t0.1\t0.3\t0.2\n")
    replies = ["So sad.", "You won!", "dog", ""]
    figures = score(write(tmp_path / "a.jsonl", replies), nrc_vad=lexicon).systems["a"].figures
    expected = [0.7 - 0.1, 0.9 - 0.9, 0.0 - 0.7, 0.0]
    assert figures["vad"]["abs_max"]["v"] == pytest.approx(sum(map(abs, expected)) / 4)
    assert figures["vad"]["signed_max"]["v"] == pytest.approx(sum(expected) / 4)
    assert figures["vad"]["abs_max"]["a"] == pytest.approx((0.1 + 0.0 + 0.4 + 0.0) / 4)


def test_the_default_lexicon_has_no_arousal_and_says_so(tmp_path: Path) -> None:
    scores = score(write(tmp_path / "a.jsonl", ["one", "two", "three", "four"]))
    assert scores.systems["a"].figures["vad"]["abs_max"]["a"] is None
    assert any("valence only" in notice for notice in scores.notices)


def test_systems_keep_the_order_given_and_equal_stems_are_both_kept(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [write(tmp_path / n, ["x"] * 4) for n in ("b.jsonl", "a.jsonl", "other/b.jsonl")]
    assert list(score(*files, metrics=["length"]).systems) == ["b", "a", "b-2"]


def test_two_files_are_compared_row_by_row_with_holm(tmp_path: Path) -> None:
    short = write(tmp_path / "short.jsonl", ["No.", "Oh.", "Hm.", "Yes."])
    long = write(
        tmp_path / "long.jsonl", ["Oh dear me.", "How very nice!", "I see now.", "Wow you!"]
    )
    scores = score(short, long)
    length = next(entry for entry in scores.paired if entry["metric"] == "length")
    assert (length["a"], length["b"]) == ("short", "long")
    assert (length["mean_a"], length["difference"]) == (1.0, 1.75)
    assert length["p"] == pytest.approx(2 / 2**4)
    assert all(entry["p_holm"] >= entry["p"] for entry in scores.paired)
    budget = scores.systems["long"].figures["distinct"]["budget"]
    assert budget == 4


def test_an_empty_reply_is_counted_reported_and_left_out_only_where_undefined(
    tmp_path: Path,
) -> None:
    a = write(tmp_path / "a.jsonl", ["", "Oh.", "Hm.", "Yes."])
    b = write(tmp_path / "b.jsonl", ["No.", "Oh.", "Hm.", "Yes."])
    scores = score(a, b)
    figures = scores.systems["a"].figures
    assert (figures["n"], figures["empty_replies"], figures["words_mean"]) == (4, 1, 0.75)
    assert figures["excluded"]["nidf_own_counts"] == 1
    by_metric = {entry["metric"]: entry for entry in scores.paired}
    assert (by_metric["length"]["n"], by_metric["nidf_own_counts"]["n"]) == (4, 3)
    assert by_metric["nidf_own_counts"]["excluded"] == 1
    assert any("1 replies are empty" in notice for notice in scores.notices)


def test_nothing_is_nan_even_if_every_reply_is_empty(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", ["", "", "", ""])
    b = write(tmp_path / "b.jsonl", ["No.", "", "Hm.", "Yes."])
    scores = score(a, b)
    assert all(math.isfinite(number) for number in numbers(scores.as_json()))
    json.dumps(scores.as_json(), allow_nan=False)
    lines = table_lines({name: one.figures for name, one in scores.systems.items()})
    assert not any("nan" in cell for line in lines for cell in line)


def test_rows_over_other_dialogues_are_counted_and_left_out_of_the_comparison(
    tmp_path: Path,
) -> None:
    a = write(tmp_path / "a.jsonl", ["No.", "Oh.", "Hm.", "Yes."])
    changed = [*DIALOGUES[:2], ("Something else.", "Indeed."), DIALOGUES[3]]
    b = write(tmp_path / "b.jsonl", ["No.", "Oh.", "Hm.", "Yes."], changed)
    scores = score(a, b)
    assert {entry["n"] for entry in scores.paired} == {3}
    assert scores.systems["b"].figures["n"] == 4
    assert any("1 of 4 rows are over different dialogues" in line for line in scores.notices)


def test_a_shorter_file_is_compared_over_the_rows_it_has(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", ["No.", "Oh.", "Hm.", "Yes."])
    b = write(tmp_path / "b.jsonl", ["No.", "Oh."], DIALOGUES[:2])
    scores = score(a, b)
    assert {entry["n"] for entry in scores.paired} == {2}
    assert any("2 of 4 rows" in line for line in scores.notices)


def test_files_without_a_common_row_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", ["x"] * 4)
    b = write(tmp_path / "b.jsonl", ["x"] * 4, DIALOGUES[1:] + DIALOGUES[:1])
    with pytest.raises(DataError, match="no row in common: all 4 rows"):
        score(a, b)


def test_a_judge_of_feeling_is_counted_with_its_abstentions(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", ["one", "two", "three", "four"])
    tools = Tools(Settings(), judge=lambda _: ["right", "opposite", "unsure", None])
    figures = score_files([file], ["feeling"], tools).systems["a"]
    share = pytest.approx(1 / 3)
    assert figures.figures["feeling"] == {"right": share, "opposite": share, "unsure": share}
    assert figures.series["feeling.right"] == [1.0, 0.0, 0.0, None]
    without = score_files([file], ["feeling"], Tools(Settings()))
    assert "feeling" not in without.systems["a"].figures and not without.systems["a"].series


def test_metric_names_are_checked_and_put_in_order() -> None:
    assert metric_names("vad, length") == ["length", "vad"]
    assert metric_names("all")[-1] == "safety"
    with pytest.raises(InvalidInput, match="Did you mean nidf"):
        metric_names("length,nidff")
    with pytest.raises(InvalidInput, match="No metric is named"):
        metric_names(" , ")


@pytest.mark.slow
def test_scoring_2540_replies_takes_less_than_ten_seconds(tmp_path: Path) -> None:
    dialogues = [(f"{user} {i}", ref) for i in range(635) for user, ref in DIALOGUES]
    replies = [f"I hear you number {i}, that must be something. Tell me!" for i in range(2540)]
    file = write(tmp_path / "big.jsonl", replies, dialogues)
    begin = time.process_time()
    score(file)
    assert time.process_time() - begin < 10


def test_a_file_in_square_brackets_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from empo_demo.evaluation.score import run_score

    files = [write(tmp_path / f"[{name}].jsonl", ["Oh no."] * 4) for name in ("bold", "red")]
    run_score(files, "distinct", as_json=False, nidf_corpus=None, encoder="")
    assert "[bold]" in capsys.readouterr().out
