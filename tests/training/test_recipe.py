"""`train sft`, `dpo`, `kto` and `grid`, from the terminal: real TRL, a model of few weights."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from empo_demo.cli import app
from tests.conftest import REPOSITORY

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


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    import torch

    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def sft(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from empo_demo.training import sft as training

    out = tmp_path_factory.mktemp("sft") / "adapter"
    training.run(job(data, out), data)
    return out


def job(data: Path, out: Path, **changes: Any) -> Any:
    from empo_demo.training.recipe import Job

    knobs = {"batch": 4, "micro": 2, "learning_rate": 1e-2, "steps": 4, **changes}
    return Job(str(data / "init"), out, **knobs)


@pytest.fixture(scope="module")
def pairs(data: Path) -> Path:
    from empo_demo.training import preferences

    out = data / "pairs.jsonl"
    preferences.from_dialogues(data, out, split="train", draws=1, seed=0, control="none")
    return out


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


@pytest.fixture(scope="module")
def whole(data: Path, sft: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a training that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    run(data, sft, pairs, out)
    return out


@pytest.fixture(scope="module")
def cut_off(data: Path, sft: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves that was killed after its first checkpoint. Copy it to go on."""
    out = tmp_path_factory.mktemp("killed")
    process = start(data, sft, pairs, out)
    wait_for_checkpoint(process, out)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "adapter_model.safetensors").exists()
    return out


@pytest.mark.slow
def test_two_processes_share_the_batch_of_one(
    data: Path, sft: Path, pairs: Path, tmp_path: Path
) -> None:
    """What `accelerate launch` starts for several GPUs, here on two CPU processes."""
    code = tmp_path / "train.py"
    code.write_text(CODE, encoding="utf8")
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    arguments = [*map(str, (code, data / "init", sft, pairs, shared)), "4"]
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run([*together, *arguments], env=environment, timeout=300)
    assert ran.returncode == 0
    run(data, sft, pairs, alone, steps=4)
    one, other = weights(alone), weights(shared)
    start = weights(sft)
    for name in one:
        moved = (one[name] - start[name]).norm()
        assert (one[name] - other[name]).norm() < 0.5 * moved, "each step saw the same pairs"


def checkpoint(folder: Path, step: int, state: str | None) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if state is not None:
        (path / "trainer_state.json").write_text(state, encoding="utf8")
    return path


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    from empo_demo.training.train import last_whole

    whole = checkpoint(tmp_path, 8, '{"global_step": 8}')
    checkpoint(tmp_path, 6, '{"global_step": 6}')
    cut = [checkpoint(tmp_path, 10, None), checkpoint(tmp_path, 12, '{"global_st')]
    assert last_whole(tmp_path) == whole
    assert not any(path.exists() for path in cut)
    assert last_whole(tmp_path / "nowhere") is None


@pytest.mark.slow
def test_a_dpo_killed_while_it_saved_goes_on_from_the_checkpoint_before(
    data: Path, sft: Path, pairs: Path, whole: Path, cut_off: Path, tmp_path: Path
) -> None:
    killed = shutil.copytree(cut_off, tmp_path / "killed")
    half = killed / "checkpoints" / "checkpoint-38"
    half.mkdir(exist_ok=True)
    for file in half.iterdir():
        file.unlink()
    (half / "adapter_model.safetensors").write_bytes(b"cut off")
    run(data, sft, pairs, killed)
    assert same(whole, killed)


@pytest.mark.slow
def test_checkpoints_of_other_settings_are_not_gone_on_with(
    data: Path, sft: Path, pairs: Path, cut_off: Path, tmp_path: Path
) -> None:
    from empo_demo.errors import DataError
    from empo_demo.training.dpo import run_dpo

    shutil.copytree(cut_off, tmp_path, dirs_exist_ok=True)
    with pytest.raises(
        DataError, match=r"learning_rate is 0.01 there and 0.001 now.*another --out"
    ):
        run_dpo(
            job(
                data,
                tmp_path,
                adapter=sft,
                learning_rate=1e-3,
                dropout=0.0,
                steps=40,
            ),
            pairs,
        )


def wait_for_checkpoint(process: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + 120
    while not any((out / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)


CODE = """
import sys
from pathlib import Path
from empo_demo.training.recipe import Job
from empo_demo.training.dpo import run_dpo
base, sft, pairs, out, *steps = sys.argv[1:]
run_dpo(Job(base, Path(out), adapter=Path(sft), batch=4, micro=2, learning_rate=1e-2, dropout=0.0,
            save_steps=2, steps=int(steps[0]) if steps else 40), Path(pairs))
"""


def start(data: Path, sft: Path, pairs: Path, out: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", CODE, *map(str, (data / "init", sft, pairs, out))]
    return subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def run(data: Path, sft: Path, pairs: Path, out: Path, steps: int = 40) -> None:
    """What `CODE` does, in this process: to import TRL takes longer than to train here."""
    from empo_demo.training.dpo import run_dpo

    run_dpo(job(data, out, adapter=sft, dropout=0.0, save_steps=2, steps=steps), pairs)


@pytest.mark.slow
def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(
    data: Path, sft: Path, pairs: Path, tmp_path: Path
) -> None:
    from empo_demo.errors import EngineError
    from empo_demo.training.dpo import run_dpo

    with pytest.raises(EngineError, match=r"loss is not a number at step \d+; the last checkpoint"):
        run_dpo(
            job(
                data,
                tmp_path,
                adapter=sft,
                learning_rate=1e30,
                save_steps=1,
                steps=40,
                warmup=0,
                extra={"max_grad_norm": 0.0},
            ),
            pairs,
        )
    kept = list((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert kept and all(bool(t.isfinite().all()) for p in kept for t in weights(p).values())
    assert not (tmp_path / "adapter_model.safetensors").exists()


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))
"""
"""No file of the process may grow past 16 kB, as on a disk that is full."""


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error(data: Path, sft: Path, pairs: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LIMITED + CODE, *map(str, (data / "init", sft, pairs))]
    ran = subprocess.run([*arguments, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert ran.returncode != 0
    said = ran.stderr.rpartition("empo_demo.errors.DataError: ")[2]
    assert said.startswith("The training cannot be written to") and "free some space" in said


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
