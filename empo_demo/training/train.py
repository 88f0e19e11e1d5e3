"""Runs a trainer of TRL: progress, checkpoints, faults in one line each, and the card at the end.

An interrupted training continues from its last complete checkpoint.
"""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.errors import DataError, EngineError
from empo_demo.progress import Begin, steps
from empo_demo.training.corpus import file_hash
from empo_demo.training.recipe import Job

if TYPE_CHECKING:
    from transformers import TrainerCallback
_SETTINGS = "settings.json"


def guard_loss() -> TrainerCallback:
    """Stops a training with a NaN loss before it changes the weights or a checkpoint."""
    import torch
    from transformers import TrainerCallback

    class Guard(TrainerCallback):
        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
        ) -> None:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            if grads and not torch.isfinite(torch.stack(torch._foreach_norm(grads)).sum()):
                raise EngineError(
                    f"The loss is not a number at step {state.global_step + 1}; the last "
                    f"checkpoint in {args.output_dir} is kept. Train again with a lower "
                    "--learning-rate, into another --output."
                )

    return Guard()


@contextmanager
def _shown(trainer: Any) -> Iterator[None]:
    """Show progress on stderr, because the trainer's bar prints its figures on stdout."""
    from transformers import PrinterCallback, TrainerCallback

    with ExitStack() as stack:

        class Shown(TrainerCallback):
            begin: Begin | None = None
            title = "training"

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.is_world_process_zero:
                    self.begin = self.begin or stack.enter_context(steps(state.max_steps))
                    self.begin(self.title, state.global_step)

            def on_log(
                self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
            ) -> None:
                if "loss" in (logs or {}):
                    self.title = f"training, loss {float(logs['loss']):.3f}"

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Shown())
        yield


def train(trainer: Any, job: Job, facts: Mapping[str, Any]) -> dict[str, float]:
    """Run (or resume) `trainer`, save the adapter to `job.out`, return the last metrics.

    `facts` are what the result depends on beside `job` (method, data). Only checkpoints of exactly
    the same training are continued.
    """
    trainer.add_callback(guard_loss())
    checkpoints = job.out / "checkpoints"
    if trainer.is_world_process_zero():
        claim(checkpoints, {**_decides(job), **facts})
    with _room_on_disk(job.out), _shown(trainer):
        resume = last_whole(checkpoints)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        # DPO has its reference as a second adapter, which is not part of the result.
        trainer.model.save_pretrained(str(job.out), selected_adapters=["default"])
    if trainer.is_world_process_zero():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return _last_metrics(trainer.state.log_history)


def _decides(job: Job) -> dict[str, Any]:
    """The settings of `job` that its result depends on."""
    found = asdict(job)
    for name in ("out", "save_steps"):
        del found[name]
    return found


@contextmanager
def _room_on_disk(out: Path) -> Iterator[None]:
    """Turn a failed write into one line. Earlier checkpoints stay."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _is_writing(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"The training cannot be written to {out}: {reason}. The last checkpoint there is "
            "kept; free some space and run the command again."
        ) from error


def _is_writing(error: Exception) -> bool:
    """Whether writing a file failed. (Reading a file is something else.)"""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    # safetensors has one error class for reading and writing. torch's writer says only that a
    # position in its archive is wrong.
    return "while serializing" in str(error) or "PytorchStreamWriter" in str(error)


def _last_metrics(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The newest value of each metric. A run of few steps logs only once, at its end."""
    found: dict[str, float] = {}
    for entry in history:
        found |= {k: float(v) for k, v in entry.items() if isinstance(v, int | float)}
    found.setdefault("loss", found.pop("train_loss", math.nan))
    timing = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    return {k: v for k, v in found.items() if k not in (*timing, "train_loss", "step")}


def write_card(
    job: Job, *, title: str, method: str, data: Path, metrics: Mapping[str, float], text: str = ""
) -> None:
    """Write the model card `README.md` to the folder of the adapter."""
    base = job.base if not Path(job.base).exists() else Path(job.base).name
    knobs = {
        "rank": job.rank,
        "alpha": job.alpha,
        "learning rate": job.learning_rate,
        **({"steps": job.steps} if job.steps else {"epochs": job.epochs}),
        "warm-up": job.warmup,
        "batch": job.batch,
        "length": job.length,
        "seed": job.seed,
        "quantisation": job.quantization,
        **job.extra,
    }
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {json.dumps(base)}",
        "license: cc-by-nc-4.0",
        f"tags: [empo, empathy, lora, {method}]",
        "---",
        "",
        f"# {title}",
        "",
        "For non-commercial use: it was trained on EmpatheticDialogues (CC BY-NC 4.0).",
        *([text.strip()] if text else []),
        "",
        f"Data: `{data.name}`, SHA-256 `{file_hash(data)}`.",
        "",
        "| hyperparameter | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in knobs.items()),
        "",
        "| last training metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in metrics.items()),
        "",
    ]
    (job.out / "README.md").write_text("\n".join(lines), encoding="utf8")


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record in `folder` what is trained; refuse checkpoints of another training.

    Values are compared as JSON. Raises a `DataError` that names the first different setting.
    """
    path = folder / _SETTINGS
    asked = json.loads(json.dumps(settings, default=str))
    if path.is_file() and any(entry != path for entry in folder.iterdir()):
        known = _read(path)
        differing = [name for name in asked if known.get(name) != asked[name]]
        if differing:
            name = differing[0]
            raise DataError(
                f"{folder} holds checkpoints of another training: {name} is {known.get(name)!r} "
                f"there and {asked[name]!r} now. Give another --output, or delete that folder."
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf8")
    except OSError as error:
        raise DataError(f"The training cannot be written to {folder}: {error}.") from None


def last_whole(folder: Path) -> Path | None:
    """The newest complete checkpoint of a `transformers` trainer.

    The trainer writes `trainer_state.json` last. A folder without a readable one is incomplete,
    because the process died, and is removed.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -_step(path))
    for path in found:
        if _read(path / "trainer_state.json"):
            return path
        shutil.rmtree(path, ignore_errors=True)
    return None


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or cut off."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
