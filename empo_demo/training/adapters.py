"""What SFT, DPO and KTO share: the base, the adapter to go on from, the arguments, the card.

The result of every training is a PEFT adapter over the same base: DPO continues the SFT adapter
and replaces it, nothing is stacked. TRL does the training; this only wires it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from empo_demo.errors import DataError, EngineError
from empo_demo.processor import fast_bfloat16
from empo_demo.training.corpus import file_hash, read_lines

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, TrainerCallback

Quantization = Literal["none", "nf4"]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class Job:
    """One training: where from, where to, and the knobs that all trainings have."""

    base: str
    out: Path
    adapter: Path | None = None
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    learning_rate: float = 1e-4
    epochs: float = 1.0
    batch: int = 64
    micro: int = 16
    length: int = 256
    seed: int = 0
    quantization: Quantization = "none"
    save_steps: int = 50
    extra: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """The arguments that every TRL config takes."""
        import torch

        on_gpu = torch.cuda.is_available()
        return {
            "output_dir": str(self.out / "checkpoints"),
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.micro,
            "gradient_accumulation_steps": max(1, self.batch // self.micro),
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "logging_steps": 5,
            # The filter would hide from `guard_loss` what it looks for.
            "logging_nan_inf_filter": False,
            "save_steps": self.save_steps,
            "save_total_limit": 2,
            "seed": self.seed,
            "data_seed": self.seed,
            "bf16": on_gpu or fast_bfloat16(),
            "use_cpu": not on_gpu,
            "gradient_checkpointing": on_gpu,
            "dataloader_pin_memory": on_gpu,
            "report_to": "none",
            "disable_tqdm": False,
            "max_length": self.length,
            **self.extra,
        }


def load_base(job: Job) -> PreTrainedModel:
    """The base model: 32-bit on a CPU, NF4 with 16-bit compute for QLoRA on a GPU."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from empo_demo.engine.adapters import first_line
    from empo_demo.engine.loading import check_model

    check_model(job.base)
    options: dict[str, Any] = {"dtype": torch.float32}
    if torch.cuda.is_available():
        options = {"dtype": torch.bfloat16, "device_map": {"": 0}}
    if job.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    try:
        return AutoModelForCausalLM.from_pretrained(job.base, **options)
    except (OSError, ValueError) as error:
        raise EngineError(f"The base {job.base} cannot be loaded: {first_line(error)}") from None


def load_adapted(job: Job) -> Any:
    """The base with the adapter that training goes on from, trainable."""
    from peft import PeftModel

    from empo_demo.engine.adapters import first_line

    if job.adapter is None:
        raise DataError("Training on preferences starts from an SFT adapter; give --adapter DIR.")
    if not (job.adapter / "adapter_config.json").is_file():
        raise DataError(f"There is no adapter at {job.adapter}; give a folder that SFT wrote.")
    try:
        return PeftModel.from_pretrained(load_base(job), str(job.adapter), is_trainable=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise EngineError(
            f"The adapter {job.adapter} does not fit the base {job.base}: {first_line(error)}"
        ) from None


def read_rows(path: Path, columns: tuple[str, ...]) -> Dataset:
    """The rows of a JSONL file with just `columns`; a missing one is named with its line."""
    from datasets import Dataset

    rows = []
    for where, row in read_lines(path):
        missing = [column for column in columns if column not in row]
        if missing:
            raise DataError(f"{where}: {', '.join(missing)} is missing; this is no such pair.")
        rows.append({column: row[column] for column in columns})
    if not rows:
        raise DataError(f"{path} holds no rows; nothing can be trained on it.")
    return Dataset.from_list(rows)


def guard_loss() -> TrainerCallback:
    """Stops a training whose loss is no number; the last checkpoint stays as it is."""
    from transformers import TrainerCallback

    class Guard(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(float(loss)):
                raise EngineError(
                    f"The loss is no number at step {state.global_step}; the last checkpoint in "
                    f"{args.output_dir} is kept. Lower the learning rate and run again."
                )

    return Guard()


def train(trainer: Any, job: Job) -> dict[str, float]:
    """Run (or resume) `trainer`, save the adapter to `job.out`, return the last metrics."""
    import shutil

    trainer.add_callback(guard_loss())
    checkpoints = job.out / "checkpoints"
    resume = any(checkpoints.glob("checkpoint-*")) if checkpoints.is_dir() else False
    with _room_on_disk(job.out):
        trainer.train(resume_from_checkpoint=resume or None)
        # DPO keeps its reference as a second adapter, which is no part of the result.
        trainer.model.save_pretrained(str(job.out), selected_adapters=["default"])
    if trainer.is_world_process_zero():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return _last_metrics(trainer.state.log_history)


@contextmanager
def _room_on_disk(out: Path) -> Iterator[None]:
    """Says in one line that a file could not be written; earlier checkpoints stay."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch's writer says no more than that a position in its archive is wrong.
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"The training cannot be written to {out}: {reason}. The last checkpoint there is "
            "kept; free some space and run the command again."
        ) from error


def _last_metrics(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The newest value of each metric; a run of few steps logs only once, at its end."""
    found: dict[str, float] = {}
    for entry in history:
        found |= {k: float(v) for k, v in entry.items() if isinstance(v, int | float)}
    found.setdefault("loss", found.pop("train_loss", math.nan))
    timing = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    return {k: v for k, v in found.items() if k not in (*timing, "train_loss", "step")}


def write_card(
    job: Job, *, title: str, method: str, data: Path, metrics: Mapping[str, float], text: str = ""
) -> None:
    """The model card, in the Hub's format."""
    base = job.base if not Path(job.base).exists() else Path(job.base).name
    knobs = {
        "rank": job.rank,
        "alpha": job.alpha,
        "learning rate": job.learning_rate,
        "epochs": job.epochs,
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
