"""What SFT, DPO and KTO share: the base, the adapter to continue, the arguments and the rows.

The result of every training is one PEFT adapter on the same base: DPO continues the SFT adapter
and replaces it; adapters are not stacked. TRL trains; this module only configures it.

Padding is wasted work, so the examples of a batch are of like length. Their order depends only on
the seed and not on the state of a random generator: what was killed goes on with the next batch.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from empo_demo.errors import DataError, EngineError, first_line
from empo_demo.files import parse_json, read_text
from empo_demo.processor import fast_bfloat16

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["none", "nf4"]
Schedule = Literal["cosine", "linear"]
Row = TypeVar("Row")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True, slots=True)
class Job:
    """One training: its start, its output folder, and the settings that all trainings have.

    `steps` is 0 for whole epochs. `warmup` is a number of steps; below 1 it is a share of them.
    `schedule` is how the rate falls after it: as a cosine to 0, or in a line to a twentieth.
    `system_prompt` and, below it, the SEM's compact hint for the share `hints_share` of the
    dialogues are what the model reads first.
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
    schedule: Schedule = "cosine"
    adam_beta2: float = 0.999
    system_prompt: str = ""
    hints_share: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> int | None:
        """How many examples `steps` steps need; None for whole epochs."""
        return self.steps * self.per_step or None

    def wanted(self, rows: int) -> int:
        """How many examples are trained on, of so many: those of `steps`, or of `epochs`."""
        return self.examples or max(1, round(self.epochs * rows))

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    @property
    def per_step(self) -> int:
        """Examples of one optimizer step, over all processes: `batch`, rounded to what they do."""
        return self._micro * _processes() * self._parts

    @property
    def _micro(self) -> int:
        return max(1, min(self.micro, self.batch // _processes()))

    @property
    def _parts(self) -> int:
        """Forward passes of a process per optimizer step."""
        return max(1, self.batch // (self._micro * _processes()))

    @property
    def base_name(self) -> str:
        """The name of the base model, without its place on this machine: an adapter's own base."""
        folder = Path(self.base).expanduser()
        if not folder.is_dir():
            return self.base
        with suppress(DataError, OSError, ValueError, AttributeError):
            named = str(parse_json(read_text(folder / "config.json")).get("_name_or_path") or "")
            return Path(named).name or folder.resolve().name
        return folder.resolve().name

    def in_order(self) -> dict[str, Any]:
        """`arguments` for rows that are in the order of training, all passes one after another."""
        return {
            **self.arguments(),
            "num_train_epochs": 1,
            "train_sampling_strategy": "sequential",
        }

    def arguments(self) -> dict[str, Any]:
        """The arguments that every TRL config takes."""
        import torch

        on_gpu = torch.cuda.is_available()
        return {
            "output_dir": str(self.checkpoints),
            "learning_rate": self.learning_rate,
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self._micro,
            "per_device_eval_batch_size": self._micro,
            "gradient_accumulation_steps": self._parts,
            "adam_beta2": self.adam_beta2,
            **self._falling(),
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

    def _falling(self) -> dict[str, Any]:
        if self.schedule == "cosine" or not self.learning_rate:
            return {"lr_scheduler_type": "cosine"}
        end = {"power": 1.0, "lr_end": self.learning_rate / 20}
        return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": end}


def _processes() -> int:
    """The number of processes of `accelerate launch`. `Job.batch` is the sum over all of them."""
    return int(os.environ.get("WORLD_SIZE", 1))


def tokenizer_of(job: Job) -> PreTrainedTokenizerBase:
    """The base's tokenizer. The base is fetched first if it is the default pair's."""
    from empo_demo.engine.text.chat_template import load_tokenizer
    from empo_demo.smollm2.obtain import provide

    provide([job.base])
    return load_tokenizer(job.base)


def load_base(job: Job) -> PreTrainedModel:
    """The base model, whose weights do not change: 16-bit where that is fast, NF4 for QLoRA.

    On a CPU that only emulates bfloat16 it is 32-bit. The adapter is always 32-bit.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from empo_demo.engine.weights.downloads import check_model

    check_model(job.base)
    options: dict[str, Any] = {"dtype": torch.bfloat16 if fast_bfloat16() else torch.float32}
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
    """A LoRA adapter that does not change the base at the start."""
    from peft import LoraConfig

    return LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=job.dropout,
        target_modules=TARGETS,
        task_type="CAUSAL_LM",
    )


def as_the_adapter(job: Job) -> Job:
    """`job` with the rank, alpha and dropout of the adapter that it continues, if any."""
    if job.adapter is None:
        return job
    file = job.adapter / "adapter_config.json"
    if not file.is_file():
        raise DataError(f"There is no adapter at {job.adapter}; give a folder that SFT wrote.")
    try:
        made = parse_json(read_text(file))
        return replace(
            job,
            rank=int(made["r"]),
            alpha=int(made["lora_alpha"]),
            dropout=float(made["lora_dropout"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file} describes no LoRA adapter: {error}.") from None


def load_adapted(job: Job) -> Any:
    """The base with the adapter to continue, trainable; without an adapter only the base."""
    from peft import PeftModel

    if job.adapter is None:
        return load_base(job)
    try:
        model = PeftModel.from_pretrained(load_base(job), str(job.adapter), is_trainable=True)
        # At each checkpoint PEFT looks for the base's configuration, and would ask the Hub for one
        # that the adapter knows by its name.
        model.peft_config["default"].base_model_name_or_path = job.base
        return model
    except (RuntimeError, ValueError, KeyError) as error:
        raise EngineError(
            f"The adapter {job.adapter} does not fit the base {job.base}: {first_line(error)}"
        ) from None


def sample(rows: Sequence[Row], job: Job) -> list[Row]:
    """The rows to train on: all, or a random sample of as many as the training needs."""
    wanted = job.wanted(len(rows))
    if wanted >= len(rows):
        return list(rows)
    return random.Random(job.seed).sample(rows, wanted)


WITHIN = 16
"""Batches among whose examples those of like length are put together."""


def in_batches(
    lengths: Sequence[int], batch: int, *, wanted: int | None = None, seed: int = 0
) -> list[int]:
    """Positions of the examples, in the order of training: `batch` at a time.

    All examples come once, or `wanted` of them, after as many whole passes as that takes. Only the
    last batch may be smaller.
    """
    rng = random.Random(f"batches {seed}")
    left = len(lengths) if wanted is None else wanted
    order: list[int] = []
    while left > len(order) and lengths:
        passage = list(range(len(lengths)))
        rng.shuffle(passage)
        order += passage[: left - len(order)]
    batches: list[list[int]] = []
    for start in range(0, len(order), batch * WITHIN):
        alike = sorted(order[start : start + batch * WITHIN], key=lengths.__getitem__)
        parts = [alike[at : at + batch] for at in range(0, len(alike), batch)]
        last = [parts.pop()] if len(parts[-1]) < batch else []
        rng.shuffle(parts)
        batches += [*parts, *last]
    return [position for group in batches for position in group]
