"""What SFT, DPO and KTO share: the base, the adapter to go on from, the arguments, the card.

The result of every training is a PEFT adapter over the same base: DPO continues the SFT adapter
and replaces it, nothing is stacked. TRL does the training; this only wires it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from empo_demo.errors import DataError, EngineError
from empo_demo.files import parse_json, read_text
from empo_demo.processor import fast_bfloat16
from empo_demo.progress import Begin, steps
from empo_demo.training.checkpoints import claim, last_whole
from empo_demo.training.corpus import file_hash, read_lines

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, TrainerCallback

Quantization = Literal["none", "nf4"]
Row = TypeVar("Row")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class Job:
    """One training: where from, where to, and the knobs that all trainings have.

    `steps` is 0 for whole epochs; `warmup` counts steps from 1 on, and is a share of them below 1.
    """

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
    steps: int = 0
    warmup: float = 0.1
    save_steps: int = 50
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> int | None:
        """How many examples `steps` steps need; None where whole epochs are trained."""
        return self.steps * max(self.batch, self.micro * _processes()) or None

    def arguments(self) -> dict[str, Any]:
        """The arguments that every TRL config takes."""
        import torch

        on_gpu = torch.cuda.is_available()
        return {
            "output_dir": str(self.out / "checkpoints"),
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.micro,
            "gradient_accumulation_steps": max(1, self.batch // (self.micro * _processes())),
            "lr_scheduler_type": "cosine",
            "warmup_steps": self.warmup,
            "max_steps": self.steps or -1,
            "logging_steps": 5,
            "save_steps": self.save_steps,
            "save_total_limit": 2,
            "seed": self.seed,
            "data_seed": self.seed,
            "bf16": on_gpu or fast_bfloat16(),
            "use_cpu": not on_gpu,
            "activation_checkpointing": on_gpu,
            "dataloader_pin_memory": on_gpu,
            "report_to": "none",
            "disable_tqdm": True,
            "max_length": self.length,
            **self.extra,
        }


def _processes() -> int:
    """How many train together, as `accelerate launch` says; `Job.batch` is over all of them."""
    return int(os.environ.get("WORLD_SIZE", 1))


def load_base(job: Job) -> PreTrainedModel:
    """The base model: 32-bit on a CPU, NF4 with 16-bit compute for QLoRA on a GPU."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from empo_demo.engine.loading import check_model
    from empo_demo.errors import first_line

    check_model(job.base)
    options: dict[str, Any] = {"dtype": torch.float32}
    if torch.cuda.is_available():
        own = int(os.environ.get("LOCAL_RANK", 0))
        options = {"dtype": torch.bfloat16, "device_map": {"": own}}
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


def new_adapter(job: Job) -> LoraConfig:
    """A LoRA adapter that starts as no change to the base."""
    from peft import LoraConfig

    return LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=job.dropout,
        target_modules=TARGETS,
        task_type="CAUSAL_LM",
    )


def as_the_adapter(job: Job) -> Job:
    """`job` with the rank, alpha and dropout of the adapter that it goes on from, if any."""
    if job.adapter is None:
        return job
    file = job.adapter / "adapter_config.json"
    if not file.is_file():
        raise DataError(f"There is no adapter at {job.adapter}; give a folder that SFT wrote.")
    try:
        made = parse_json(read_text(file))
        return replace(
            job, rank=int(made["r"]), alpha=int(made["lora_alpha"]),
            dropout=float(made["lora_dropout"]),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file} describes no LoRA adapter: {error}.") from None


def load_adapted(job: Job) -> Any:
    """The base with the adapter that training goes on from, trainable; else the base alone."""
    from peft import PeftModel

    from empo_demo.errors import first_line

    if job.adapter is None:
        return load_base(job)
    try:
        return PeftModel.from_pretrained(load_base(job), str(job.adapter), is_trainable=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise EngineError(
            f"The adapter {job.adapter} does not fit the base {job.base}: {first_line(error)}"
        ) from None


def sample(rows: Sequence[Row], job: Job) -> list[Row]:
    """The rows that are trained on: all, or a draw of as many as `job.steps` steps take."""
    if job.examples is None or job.examples >= len(rows):
        return list(rows)
    return random.Random(job.seed).sample(rows, job.examples)


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a JSONL file with just `columns`; a missing one is named with its line."""
    rows = []
    for where, row in read_lines(path):
        missing = [column for column in columns if column not in row]
        if missing:
            raise DataError(f"{where}: {', '.join(missing)} is missing; this is no such pair.")
        rows.append({column: row[column] for column in columns})
    if not rows:
        raise DataError(f"{path} holds no rows; nothing can be trained on it.")
    return rows


def guard_loss() -> TrainerCallback:
    """Stops a training whose loss is no number before it reaches the weights or a checkpoint."""
    import torch
    from transformers import TrainerCallback

    class Guard(TrainerCallback):
        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
        ) -> None:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            if grads and not torch.isfinite(torch.stack(torch._foreach_norm(grads)).sum()):
                raise EngineError(
                    f"The loss is no number at step {state.global_step + 1}; the last checkpoint "
                    f"in {args.output_dir} is kept. Train again with a lower --learning-rate, "
                    "into another --output."
                )

    return Guard()


@contextmanager
def _shown(trainer: Any) -> Iterator[None]:
    """Progress on stderr in place of the trainer's bar, which puts its figures on stdout."""
    from transformers import PrinterCallback, TrainerCallback

    with ExitStack() as stack:

        class Shown(TrainerCallback):
            begin: Begin | None = None
            loss = math.nan

            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.is_world_process_zero:
                    self.begin = self.begin or stack.enter_context(steps(state.max_steps))
                    self.begin(f"training, loss {self.loss:.3f}", state.global_step)

            def on_log(
                self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
            ) -> None:
                self.loss = float((logs or {}).get("loss", self.loss))

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Shown())
        yield


def train(trainer: Any, job: Job, told: Mapping[str, Any]) -> dict[str, float]:
    """Run (or resume) `trainer`, save the adapter to `job.out`, return the last metrics.

    `told`: what else decides the result beside `job` (method, data); only checkpoints of the very
    same training are gone on with.
    """
    trainer.add_callback(guard_loss())
    checkpoints = job.out / "checkpoints"
    if trainer.is_world_process_zero():
        claim(checkpoints, {**_decides(job), **told})
    with _room_on_disk(job.out), _shown(trainer):
        resume = last_whole(checkpoints)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        # DPO keeps its reference as a second adapter, which is no part of the result.
        trainer.model.save_pretrained(str(job.out), selected_adapters=["default"])
    if trainer.is_world_process_zero():
        shutil.rmtree(checkpoints, ignore_errors=True)
    return _last_metrics(trainer.state.log_history)


def _decides(job: Job) -> dict[str, Any]:
    """The settings of `job` that decide its result."""
    found = asdict(job)
    for name in ("out", "save_steps"):
        del found[name]
    return found


@contextmanager
def _room_on_disk(out: Path) -> Iterator[None]:
    """Says in one line that a file could not be written; earlier checkpoints stay."""
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
    """Did a file fail to be written? (A file that cannot be read is something else.)"""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    # safetensors has one class for both ways; torch's writer says no more than that a position
    # in its archive is wrong.
    return "while serializing" in str(error) or "PytorchStreamWriter" in str(error)


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
