"""`train sft`, `dpo`, `kto` and `grid`, from the terminal: real TRL, a model of few weights."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from empo_demo.cli import app
from tests.training.conftest import job, same

pytest.importorskip("trl", reason="adapters are trained with TRL: pip install -e .[train]")

STEPS = ("--steps", "4", "--batch", "4", "--micro", "2", "--learning-rate", "1e-2")


def terminal(*arguments: object) -> str:
    """What `python -m empo_demo train …` says on stderr; it must succeed."""
    ran = subprocess.run(
        [sys.executable, "-m", "empo_demo", "train", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stderr


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command with wrong input prints, in this process."""
    from empo_demo.cli import main

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["empo_demo", "train", *map(str, arguments)])
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    _, separator, line = said.rpartition("Error: ")
    assert separator and line.count("\n") == 1, "one line at the end of stderr was expected"
    return line


@pytest.mark.slow
def test_sft_is_reproducible_and_leaves_an_adapter_with_its_card(
    data: Path, sft: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    said = terminal("sft", "--data", data, "--base", data / "init", "--out", again, *STEPS)
    assert said.endswith(f"The result is in {again}, its card in {again / 'README.md'}.\n")
    assert same(sft, again)
    card = (again / "README.md").read_text(encoding="utf8")
    assert re.search(r"SHA-256 `[0-9a-f]{64}`", card) and "learning rate | 0.01" in card
    assert "license: cc-by-nc-4.0" in card and "For non-commercial use" in card
    assert not (again / "checkpoints").exists()


@pytest.mark.slow
def test_the_arena_loads_the_adapters_as_they_are(
    data: Path, sft: Path, pairs: Path, tmp_path: Path
) -> None:
    from empo_demo.training.dpo import run_dpo
    from recipes.studies.grid import _engine

    run_dpo(job(data, tmp_path, adapter=sft), pairs)
    engine: Any = _engine(str(data / "init"), {"sft": sft, "aligned": tmp_path})
    asked = [([{"role": "user", "content": "My old dog died today"}], "I see")]
    ((one, tokens),), ((other, _),) = (engine.score(name, asked) for name in ("sft", "aligned"))
    assert tokens > 1 and math.isfinite(one) and one != other


@pytest.mark.slow
def test_the_reference_of_dpo_is_the_sft_model(
    data: Path, sft: Path, pairs: Path, tmp_path: Path
) -> None:
    """With a learning rate of 0 the policy stays the SFT model: no reward, loss ln 2."""
    from empo_demo.training import dpo

    found = logged(
        dpo,
        lambda: dpo.run_dpo(
            job(data, tmp_path, adapter=sft, learning_rate=0.0, dropout=0.0), pairs
        ),
    )
    assert same(sft, tmp_path)
    assert found["rewards/chosen"] == pytest.approx(0.0, abs=1e-4)
    assert found["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_without_an_adapter_a_new_one_of_the_rank_begins_on_the_base(
    data: Path, pairs: Path, tmp_path: Path, method: str
) -> None:
    """Its reference is the base: at a learning rate of 0 no reply is better than it was."""
    from empo_demo.training import dpo

    run = {"dpo": dpo.run_dpo, "kto": dpo.run_kto}[method]
    plan = job(data, tmp_path, learning_rate=0.0, dropout=0.0, rank=3, alpha=6)
    found = logged(dpo, lambda: run(plan, pairs))
    made = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (made["r"], made["lora_alpha"]) == (3, 6)
    assert found["rewards/margins"] == pytest.approx(0.0, abs=1e-4)
    card = (tmp_path / "README.md").read_text()
    assert "| rank | 3 |" in card and "from the base, which is also the reference" in card


@pytest.mark.slow
def test_the_card_has_the_rank_of_the_adapter_that_was_given(
    data: Path, pairs: Path, tmp_path: Path
) -> None:
    from empo_demo.training import dpo, sft

    sft.run(job(data, tmp_path / "sft", rank=2, alpha=4), data)
    dpo.run_dpo(job(data, tmp_path / "dpo", adapter=tmp_path / "sft", steps=1), pairs)
    card = (tmp_path / "dpo" / "README.md").read_text()
    assert "| rank | 2 |" in card and "| alpha | 4 |" in card and "an SFT adapter" in card


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_rank_is_refused_where_the_adapter_has_its_own(
    capsys: pytest.CaptureFixture[str], method: str
) -> None:
    line = refused(
        capsys, method, "--pairs", "p", "--base", "b", "-o", "o", "--adapter", "mine", "--rank", 8
    )
    assert "the adapter mine has its rank already" in line


@pytest.mark.slow
def test_in_a_pipe_a_training_says_a_line_and_keeps_stdout_free(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from empo_demo import progress
    from empo_demo.training import sft

    monkeypatch.setattr(progress, "EVERY", 0.02)
    sft.run(job(data, tmp_path, steps=8), data)
    out, err = capfd.readouterr()
    assert out == "" and "nan" not in err and not re.search(r"\d/8 \[", err), err
    assert re.search(r"^training(, loss \d+\.\d{3})?: [1-7] of 8 done, \d+ s$", err, re.M), err


def logged(module: Any, run: Any) -> dict[str, float]:
    """The metrics that a training handed to its card."""
    kept: dict[str, float] = {}
    write = module.write_card
    module.write_card = lambda *a, **k: (kept.update(k["metrics"]), write(*a, **k))
    try:
        run()
    finally:
        module.write_card = write
    return kept


@pytest.mark.slow
def test_dpo_learns_the_pairs_it_sees(data: Path, sft: Path, pairs: Path, tmp_path: Path) -> None:
    from empo_demo.training import dpo

    found = logged(
        dpo, lambda: dpo.run_dpo(job(data, tmp_path, adapter=sft, steps=30), pairs, beta=0.5)
    )
    assert found["rewards/margins"] > 0 and found["loss"] < math.log(2)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ipo", "sigmoid:1,sft:0.5"])
def test_other_losses_of_trl_can_be_named(
    data: Path, sft: Path, pairs: Path, tmp_path: Path, loss: str
) -> None:
    from empo_demo.training.dpo import run_dpo

    run_dpo(job(data, tmp_path, adapter=sft), pairs, loss=loss)
    assert loss in (tmp_path / "README.md").read_text(encoding="utf8")
    assert not same(sft, tmp_path)


@pytest.mark.slow
def test_kto_reads_what_votes_export_writes(data: Path, sft: Path, tmp_path: Path) -> None:
    rows = tmp_path / "votes.jsonl"
    user = [{"role": "user", "content": "My old dog died today"}]
    lines = [
        {
            "prompt": user,
            "completion": [{"role": "assistant", "content": text}],
            "label": label,
            "contender": "base",
        }
        for text, label in (("I see", False), ("Oh no what was his name", True)) * 4
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf8")
    out = tmp_path / "out"
    arguments = ["--pairs", rows, "--base", data / "init", "--adapter", sft, "--out", out, *STEPS]
    done = CliRunner().invoke(app, ["train", "kto", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert not same(sft, out)
    assert "KTO" in (out / "README.md").read_text(encoding="utf8")


@pytest.mark.slow
def test_an_adapter_of_another_base_is_refused(
    data: Path, sft: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from empo_demo.settings import ASSETS

    line = refused(
        capsys,
        "dpo",
        "--pairs",
        pairs,
        "--base",
        ASSETS / "tiny" / "base",
        "--adapter",
        sft,
        "--out",
        tmp_path,
    )
    assert "does not fit the base" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--pairs": "missing.jsonl"}, "missing.jsonl"),
        ({"--adapter": "nowhere"}, "There is no adapter at nowhere"),
        ({"--base": "nowhere/at-all"}, "nowhere/at-all"),
        ({"--loss": "nonsense"}, "nonsense"),
        ({"--loss": "sigmoid:much"}, "a loss type and its weight"),
        ({"--quantization": "int3"}, "may be none or nf4"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(
    data: Path,
    sft: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str],
    said: str,
) -> None:
    options = {
        "--pairs": pairs,
        "--base": data / "init",
        "--adapter": sft,
        "--out": tmp_path,
        "--steps": 1,
        "--batch": 2,
        "--micro": 2,
        **changed,
    }
    line = refused(capsys, "dpo", *(part for option in options.items() for part in option))
    assert said in line


@pytest.mark.slow
def test_a_malformed_pair_is_named_by_file_and_line(
    data: Path, sft: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(pairs.read_text(encoding="utf8") + '{"prompt": []}\n', encoding="utf8")
    line = refused(
        capsys,
        "dpo",
        "--pairs",
        bad,
        "--base",
        data / "init",
        "--adapter",
        sft,
        "--out",
        tmp_path / "out",
    )
    assert f"{bad}, line 21: chosen, rejected is missing" in line


def test_few_steps_take_only_the_examples_that_they_need(tmp_path: Path) -> None:
    from empo_demo.training.recipe import Job, sample

    rows = list(range(1000))
    few = sample(rows, Job("b", tmp_path, steps=3, batch=8, micro=4, seed=1))
    assert len(few) == 24 and few == sample(
        rows, Job("b", tmp_path, steps=3, batch=8, micro=4, seed=1)
    )
    assert sample(rows, Job("b", tmp_path)) == rows
    assert sample(rows, Job("b", tmp_path, steps=500, batch=8)) == rows


def test_kto_takes_pairs_apart_and_rated_replies_as_they_are(tmp_path: Path) -> None:
    from empo_demo.errors import DataError
    from empo_demo.training.dpo import read_rated

    file = tmp_path / "rows.jsonl"
    user = [{"role": "user", "content": "u"}]
    yes, no = ([{"role": "assistant", "content": text}] for text in ("y", "n"))
    file.write_text(json.dumps({"prompt": user, "chosen": yes, "rejected": no, "x": 1}))
    assert read_rated(file) == [
        {"prompt": user, "completion": yes, "label": True},
        {"prompt": user, "completion": no, "label": False},
    ]
    file.write_text(json.dumps({"prompt": user, "completion": yes, "label": False}))
    assert read_rated(file)[0]["label"] is False
    file.write_text(json.dumps({"prompt": []}))
    with pytest.raises(DataError, match="completion, label is missing"):
        read_rated(file)


def test_preferences_build_says_how_many_pairs_it_wrote_where(data: Path, tmp_path: Path) -> None:
    from empo_demo.training import preferences

    out = tmp_path / "pairs.jsonl"
    said = preferences.from_dialogues(data, out, split="train", draws=2, seed=0, control="none")
    rows = len(out.read_text().splitlines())
    assert said.startswith(f"{out}: {rows:,} pairs of {rows // 2:,} dialogues (")
    assert said.endswith(f"card: {tmp_path / 'pairs.card.json'}.")


def test_interval_rank_and_warm_up_reach_the_trainer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from empo_demo.training import dpo, sft

    jobs: list[Any] = []
    monkeypatch.setattr(sft, "run", lambda job, *_, **__: jobs.append(job))
    monkeypatch.setattr(dpo, "run_dpo", lambda job, *_, **__: jobs.append(job))
    monkeypatch.setattr(dpo, "run_kto", lambda job, *_, **__: jobs.append(job))
    shared = ["-o", str(tmp_path), "--base", "b", "--warmup", "7", "--save-steps", "3"]
    pairs = ["--pairs", "p", "--adapter", "a"]
    for line in (["sft", "--data", "d", "--rank", "4"], ["dpo", *pairs], ["kto", *pairs]):
        done = CliRunner().invoke(app, ["train", *line, *shared])
        assert done.exit_code == 0, done.output
    arguments = [job.arguments() for job in jobs]
    assert [(a["warmup_steps"], a["save_steps"]) for a in arguments] == [(7.0, 3)] * 3
    assert (jobs[0].rank, jobs[0].alpha) == (4, 8)
