"""A training that is killed, spread over processes, without room or without sense."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.training.conftest import job, same, weights

pytest.importorskip("trl", reason="adapters are trained with TRL: pip install -e .[train]")


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


def wait_for_checkpoint(process: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + 120
    while not any((out / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.02)


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))
"""
"""No file of the process may grow past 16 kB, as on a disk that is full."""


def checkpoint(folder: Path, step: int, state: str | None) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if state is not None:
        (path / "trainer_state.json").write_text(state, encoding="utf8")
    return path


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


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error(data: Path, sft: Path, pairs: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LIMITED + CODE, *map(str, (data / "init", sft, pairs))]
    ran = subprocess.run([*arguments, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert ran.returncode != 0
    said = ran.stderr.rpartition("empo_demo.errors.DataError: ")[2]
    assert said.startswith("The training cannot be written to") and "free some space" in said
