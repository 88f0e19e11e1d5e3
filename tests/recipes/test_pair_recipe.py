"""The recipe of the default pair: its pairs, its settings, and the table of the short trainings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from empo_demo.smollm2.package import SMOLLM2
from recipes.pair import __main__ as pair
from recipes.pair import settings
from recipes.sem.folds import fold_of
from tests.training.conftest import write_data


def test_the_pairs_to_watch_are_not_of_the_fold_that_is_reported(tmp_path: Path) -> None:
    data = write_data(tmp_path)
    train = data / "empathetic_dialogues.train.jsonl.gz"
    shutil.copyfile(train, data / "empathetic_dialogues.valid.jsonl.gz")
    pair.pairs(data, tmp_path / "pairs.jsonl")
    held = (tmp_path / "pairs.valid.jsonl").read_text().splitlines()
    folds = {fold_of(json.loads(line)["conv_id"]) for line in held}
    assert 0 < len(held) < 20 and folds == {0, 1}
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert any(row["emotion"] == row["rejected_emotion"] for row in rows)
    assert any(row["emotion"] != row["rejected_emotion"] for row in rows)


def test_it_trains_the_default_base_with_the_prompt_that_is_served(tmp_path: Path) -> None:
    first = settings.sft_job(tmp_path, None)
    then = settings.dpo_job(tmp_path, tmp_path / "sft", settings.CHOSEN)
    for job in (first, then):
        assert job.base == str(SMOLLM2.folder)
        assert job.system_prompt == settings.system_prompt() != ""
        assert job.hints_share > 0
    assert then.adapter == tmp_path / "sft" and first.rank == 16
    assert settings.sft_job(tmp_path, tmp_path).epochs < first.epochs


def test_the_choice_is_one_of_those_that_were_tried() -> None:
    assert settings.CHOSEN in settings.TRIED
    assert len({choice.name for choice in settings.TRIED}) == 4
    assert settings.Choice(0.1, 1e-4, 0.2).loss == "sigmoid,sft:0.2"
    assert settings.Choice(0.1, 1e-4, 0.0).loss == "sigmoid"


def test_the_short_trainings_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that has ended is not done again; the newest of each figure counts."""
    done: list[str] = []

    def align(out: Path, sft: Path, pairs: Path, choice: settings.Choice, *, steps: int) -> None:
        done.append(choice.name)
        out.mkdir(parents=True)
        (out / "adapter_model.safetensors").touch()
        lines = [{"step": 0, "replies/words": 9.0}, {"step": steps, "replies/words": 11.25}]
        (out / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))

    monkeypatch.setattr(pair, "_align", align)
    for _ in range(2):
        pair.choose(tmp_path / "sft", tmp_path / "pairs.jsonl", tmp_path / "runs")
    assert done == [choice.name for choice in settings.TRIED]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("| beta | rate | SFT weight |") and "11.2" in said[2]
    assert len({line.count("|") for line in said}) == 1 and len(said) == 2 * (2 + 4)
