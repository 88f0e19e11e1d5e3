"""What the SEM judges: EPITOME levels, emotions, and BERTScore's embedded encoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from empo_demo.errors import EngineError, SettingsError
from empo_demo.evaluation.score import score_files
from empo_demo.evaluation.tools import Tools
from empo_demo.settings import ASSETS, Settings

needs_sem = pytest.mark.skipif(
    not (ASSETS / "sem" / "sem.json").is_file(), reason="assets/sem is not there"
)


@pytest.fixture(scope="module")
def tools() -> Tools:
    return Tools(Settings(), encoder_name="auto")


class OnlyReads:
    """A SEM of a plugin: it reads turns and nothing else."""

    name, revision = "plugin", "1"


def test_a_sem_that_cannot_judge_epitome_says_what_to_do() -> None:
    tools = Tools(Settings())
    tools.__dict__["sem"] = OnlyReads()
    with pytest.raises(EngineError, match="cannot judge EPITOME levels; unset EMPO_SEM"):
        tools.epitome_levels([("Hi.", "Hello.")])


def test_an_encoder_that_does_not_exist_is_one_clear_error(tmp_path: Path) -> None:
    for name in ("nobody/nothing", str(tmp_path), "nobody/nothing:3"):
        with pytest.raises(SettingsError) as error:
            _ = Tools(Settings(), encoder_name=name).encoder
        assert "\n" not in str(error.value)


@needs_sem
def test_levels_do_not_depend_on_the_batch_and_an_empty_reply_has_none(tools: Tools) -> None:
    pairs = [
        ("I lost my job today.", "I am so sorry, that must be really hard for you."),
        ("I lost my job today.", ""),
        ("My dog ran away.", "What happened? How did he get out?"),
    ]
    levels = tools.epitome_levels(pairs)
    assert levels[1] == {"er": 0, "ex": 0, "ip": 0}
    assert all(level in (0, 1, 2) for row in levels for level in row.values())
    assert Tools(Settings()).epitome_levels(pairs[2:]) == levels[2:]


@needs_sem
def test_emotions_are_distributions_and_none_for_an_empty_text(tools: Tools) -> None:
    sad, empty = tools.emotions(["I cried all night, I lost my mother.", " "])
    assert empty is None
    assert sad is not None
    assert sum(sad.values()) == pytest.approx(1.0)
    assert len(sad) == 32


@needs_sem
def test_every_metric_runs_on_a_file_without_stored_levels(tools: Tools, tmp_path: Path) -> None:
    file = tmp_path / "small.jsonl"
    rows = [
        ("I lost my dog.", "Oh no, I am so sorry.", "That is so sad, I am sorry."),
        ("We won the cup!", "Congratulations!", ""),
    ]
    file.write_text(
        "".join(
            json.dumps({"context": [user], "reference": ref, "response": reply}) + "\n"
            for user, ref, reply in rows
        )
    )
    scores = score_files([file], ["diff-epitome", "bertscore", "emotion"], tools)
    figures = scores.systems["small"].figures
    assert figures["epitome_source"].startswith("embedded@")
    own = figures["bertscore_minilm"]
    assert own["f1"] is not None and own["encoder"] and "bertscore" not in figures
    assert figures["excluded"] == {"emotion.overlap": 1}
    json.dumps(scores.as_json(), allow_nan=False)


@needs_sem
def test_stored_levels_are_not_compared_with_judged_ones(tools: Tools, tmp_path: Path) -> None:
    stored, bare = tmp_path / "stored.csv", tmp_path / "bare.csv"
    names = [f"{side}_{m}_scores" for side in ("pred", "gt") for m in ("ER", "EX", "IP")]
    row = "I lost my dog.,Oh no.,That is sad."
    stored.write_text(f"prevs,gen_targets,gens,{','.join(names)}\n{row},2,2,2,0,0,0\n")
    bare.write_text(f"prevs,gen_targets,gens\n{row}\n")
    scores = score_files([stored, bare], ["diff-epitome"], tools)
    sources = {one.figures["epitome_source"] for one in scores.systems.values()}
    assert len(sources) == 1 and sources.pop().startswith("embedded@")
    assert any("Only stored stores EPITOME levels" in line for line in scores.notices)


def test_a_text_of_two_words_is_not_taken_for_an_empty_one() -> None:
    """BERTScore calls whatever has two tokens empty, since the frame of a text has as many."""
    from empo_demo.metrics.bertscore import bertscore

    encoder = Tools(Settings()).embedded_encoder()
    texts = ["Oh no", "Thanks", "I am so sorry to hear that."]
    assert [round(one.f1, 3) for one in bertscore(texts, texts, encoder)] == [1.0, 1.0, 1.0]


def test_a_reply_that_is_longer_than_the_encoder_reads_is_cut_and_not_refused() -> None:
    """The SEM's encoder has fewer places than the tokenizers of others assume."""
    from empo_demo.metrics.bertscore import bertscore

    encoder = Tools(Settings()).embedded_encoder()
    long = "I am so sorry to hear that. " * 100
    (score,) = bertscore([long], [long], encoder)
    assert round(score.f1, 3) == 1.0
