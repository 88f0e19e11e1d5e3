"""Runs a trainer of TRL: progress, checkpoints, faults in one line each, and the card at the end.

An interrupted training continues from its last complete checkpoint.

TRL's trainers ask the model for log-probabilities instead of logits. On a GPU its kernel computes
them for the positions that have a label. On a CPU it computes them for all positions, and the
projection twice, in fp32: of a small model with a large vocabulary that is most of a step. So the
model gets a head that computes the same figures for the labelled positions, the replies, alone.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
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
Rows = list[dict[str, Any]]


def begin(job: Job, **facts: Any) -> None:
    """Claim the place of the checkpoints; call it before anything is prepared.

    `facts` are what the result depends on beside `job` (method, data). Only checkpoints of exactly
    the same training are continued; rows without a checkpoint are made again.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    folder = job.checkpoints
    settings = json.loads(json.dumps({**_decides(job), **facts}, default=str))
    if not any(folder.glob("checkpoint-*")) and _read(folder / _SETTINGS) != settings:
        shutil.rmtree(folder, ignore_errors=True)
    claim(folder, settings)


def kept_rows(job: Job, name: str, make: Callable[[], Rows]) -> Rows:
    """The rows of `make`, kept beside the checkpoints, so that a killed training finds the same.

    The first of several processes makes them, and the others wait for it.
    """
    from accelerate import PartialState

    path = job.checkpoints / f"{name}.jsonl"
    with PartialState().main_process_first():
        if not path.is_file():
            rows = make()
            part = path.with_name(f"{path.name}.part")
            with _room_on_disk(job.out):
                path.parent.mkdir(parents=True, exist_ok=True)
                text = "".join(json.dumps(row) + "\n" for row in rows)
                part.write_text(text, encoding="utf8")
                part.replace(path)
        return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


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


def train(trainer: Any, job: Job) -> dict[str, float]:
    """Run (or resume) `trainer`, save the adapter to `job.out`, return the last metrics.

    The place of its checkpoints is claimed by `begin`.
    """
    trainer.add_callback(guard_loss())
    with _room_on_disk(job.out), _shown(trainer):
        resume = last_whole(job.checkpoints)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        _save(trainer.model, job)
    if trainer.is_world_process_zero():
        shutil.rmtree(job.checkpoints, ignore_errors=True)
    return _last_metrics(trainer.state.log_history)


def prepared(trainer: Any) -> Any:
    """TRL's `trainer` with a head that scores the replies only, where TRL's scores everything."""
    score_replies_only(trainer.model.get_base_model())
    return trainer


def _save(model: Any, job: Job) -> None:
    """Save the adapter in 16 bit, as it is served, under the name of its base and not its place."""
    import torch

    for weight in model.parameters():
        if weight.requires_grad and weight.dtype == torch.float32:
            weight.data = weight.data.to(torch.bfloat16)
    for config in model.peft_config.values():
        config.base_model_name_or_path = job.base_name
    # DPO has its reference as a second adapter, which is not part of the result. The embeddings are
    # never changed; to find that out by itself, PEFT would ask the Hub for the base's name.
    model.save_pretrained(str(job.out), selected_adapters=["default"], save_embedding_layers=False)


def _decides(job: Job) -> dict[str, Any]:
    """The settings of `job` that its result depends on."""
    settings = asdict(job)
    for name in ("out", "save_steps"):
        del settings[name]
    return settings


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
    metrics: dict[str, float] = {}
    for entry in history:
        metrics |= {k: float(v) for k, v in entry.items() if isinstance(v, int | float)}
    metrics.setdefault("loss", metrics.pop("train_loss", math.nan))
    timing = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    return {k: v for k, v in metrics.items() if k not in (*timing, "train_loss", "step")}


def write_card(
    job: Job, *, title: str, method: str, data: Path, metrics: Mapping[str, float], text: str = ""
) -> None:
    """Write the model card `README.md` to the folder of the adapter."""
    knobs = {
        "rank": job.rank,
        "alpha": job.alpha,
        "learning rate": job.learning_rate,
        **({"steps": job.steps} if job.steps else {"epochs": job.epochs}),
        "warm-up": job.warmup,
        "schedule": job.schedule,
        "Adam's beta 2": job.adam_beta2,
        "dropout": job.dropout,
        "batch": job.batch,
        "length": job.length,
        "seed": job.seed,
        "quantisation": job.quantization,
        **({"system prompt": job.system_prompt} if job.system_prompt else {}),
        **({"share with hints": job.hints_share} if job.hints_share else {}),
        **job.extra,
    }
    lines = [
        "---",
        "library_name: peft",
        f"base_model: {json.dumps(job.base_name)}",
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
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: -_step(path))
    for path in checkpoints:
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
        value = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


MOST_BYTES = 2**30
"""The most memory for logits in fp32. Beyond it TRL's head, which works in pieces, is used."""
_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
_PLAIN = (None, 1, 1.0)


def score_replies_only(model: Any) -> None:
    """Give `model`, a causal language model that a trainer of TRL has prepared, the faster head.

    It stays TRL's own on other devices, for models that scale or cap their logits, and for batches
    whose labelled positions need more than `MOST_BYTES`.
    """
    config = model.config.get_text_config()
    scaled = any(getattr(config, name, None) not in _PLAIN for name in _SCALES)
    capped = getattr(config, "final_logit_softcapping", None) is not None
    if scaled or capped or getattr(config, "output_router_logits", False):
        return
    model.forward = _forward(model, model.forward)


def _forward(model: Any, theirs: Callable[..., Any]) -> Callable[..., Any]:
    from trl.trainer.utils import FusedCausalLMOutput

    def forward(*args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None or labels.device.type != "cpu":
            return theirs(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        head = model.get_output_embeddings()
        mask = labels[:, 1:] != -100
        if 4 * int(mask.sum()) * head.weight.shape[0] > MOST_BYTES:
            return theirs(*args, fused_lm_head=True, labels=labels, **kwargs)
        count = kwargs.pop("num_items_in_batch", None)
        hidden = model.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state
        figures = _figures(head(hidden[:, :-1][mask]).float(), labels[:, 1:][mask])
        # Positions without a label are 0, as in TRL's own output.
        full = {
            name: value.new_zeros(mask.shape).masked_scatter(mask, value)
            for name, value in figures.items()
        }
        divisor = mask.sum().clamp(min=1) if count is None else count
        loss = -full["log_probs"].sum() / divisor
        return FusedCausalLMOutput(loss=loss, **full, label_mask=mask, aux_loss=None)

    return forward


def _figures(logits: Any, targets: Any) -> dict[str, Any]:
    """TRL's figures of each token, from logits (tokens, vocabulary). Only the first is learnt."""
    import torch

    logs = logits.log_softmax(-1)
    log_probs = logs.gather(-1, targets[:, None])[:, 0]
    with torch.no_grad():
        probs = logs.exp()
        return {
            "log_probs": log_probs,
            "entropy": -(probs * logs).sum(-1),
            "log_sum_sq_probs": probs.square().sum(-1).log(),
            "mean_logits": logits.mean(-1),
            "is_top1": logits.argmax(-1) == targets,
        }
