"""The tiny base's training: reproducible by seed, and a SIGKILL costs one interval at most.

Runs on twenty dialogues of our own sentences and goes on from a model of a few thousand weights.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from empo_demo.errors import DataError

CONFIG = {"passes": 40.0, "tokens": 128, "micro": 64, "checkpoint_seconds": 0.0}


def train(data: Path, out: Path, **changes: float) -> dict[str, object]:
    """A whole run here; the final weights."""
    from safetensors.torch import load_file

    from recipes.tiny import fit_base

    config = fit_base.TinyConfig(**{**CONFIG, **changes})  # type: ignore[arg-type]
    fit_base.run(data, out, data / "init", config, threads=1)
    return load_file(out / "model.safetensors")


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.tiny import fit_base

    taken: list[int] = []
    advance = fit_base._Trainer._advance

    def counted(trainer: fit_base._Trainer, rows: list[list[fit_base.Row]]) -> int:
        taken.append(trainer.step)
        return advance(trainer, rows)

    monkeypatch.setattr(fit_base._Trainer, "_advance", counted)
    whole = train(data, tmp_path / "whole")
    total = len(taken)
    taken.clear()
    out = tmp_path / "killed"
    code = (
        "from pathlib import Path; from recipes.tiny import fit_base; "
        f"fit_base.run(Path({str(data)!r}), Path({str(out)!r}), Path({str(data / 'init')!r}), "
        f"fit_base.TinyConfig(**{CONFIG!r}), threads=1)"
    )
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    state = out / "checkpoint" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.is_file() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert state.is_file() and not (out / "training.json").exists(), "it was not killed midway"

    import torch

    step = torch.load(state, weights_only=True)["step"]
    resumed = train(data, out)
    assert step >= 1 and taken == list(range(step, total)), "it must go on, not start again"
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not (out / "checkpoint").exists()


@pytest.mark.slow
def test_in_a_pipe_its_progress_is_a_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from empo_demo import progress

    monkeypatch.setattr(progress, "EVERY", 0.02)
    train(data, tmp_path / "out", passes=10.0)
    lines = capsys.readouterr().err.splitlines()
    shape = r"tiny base, loss (nan|\d+\.\d{3}), [\d,]+ tokens/s: \d+ of \d+ done, \d+ s"
    assert lines and all(re.fullmatch(shape, line) for line in lines), lines


def test_a_run_shorter_than_a_checkpoint_interval_ends_well_and_learns(
    data: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    trained = train(data, tmp_path / "out", passes=1.0, tokens=12_288, checkpoint_seconds=1e9)
    start = load_file(data / "init" / "model.safetensors")
    assert any(not torch.equal(start[n].bfloat16(), trained[n]) for n in trained)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["init"] is True and len(record["data"]) == 2


def test_a_folder_without_the_files_is_one_clear_error(data: Path, tmp_path: Path) -> None:
    from recipes.tiny import fit_base

    with pytest.raises(DataError, match=r"There is no empathetic_dialogues\.train"):
        fit_base.run(tmp_path, tmp_path / "out", data / "init", fit_base.TinyConfig(), threads=1)


def test_a_torch_without_muon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from empo_demo.errors import DataError
    from recipes.tiny.fit_base import _optimizers

    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(DataError, match=r"2\.9 or newer"):
        _optimizers(None, None)  # type: ignore[arg-type]
