"""Preference training: DPO on pairs, KTO on rated replies. The SFT model is the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.errors import InvalidInput
from empo_demo.training.corpus import file_hash
from empo_demo.training.pair_file import fitting, read_pairs, read_rated
from empo_demo.training.recipe import Job, as_the_adapter, load_adapted, new_adapter, sample
from empo_demo.training.train import train, write_card


def run_dpo(job: Job, pairs: Path, *, loss: str = "sigmoid", beta: float = 0.05) -> None:
    """Continue the SFT adapter with TRL's DPO. The reference is the adapter at the start.

    Without `job.adapter`, a new adapter is trained and the base is the reference. `loss` is a
    loss type of TRL, or several with weights, such as `sigmoid:1,sft:0.5`.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    job = as_the_adapter(job)
    types, weights = parse_losses(loss)
    drawn = sample(read_pairs(pairs), job)
    tokenizer = load_tokenizer(job.base)
    data = Dataset.from_list(fitting(drawn, tokenizer, job.length, pairs))
    trainer = DPOTrainer(
        model=load_adapted(job),
        args=DPOConfig(loss_type=types, loss_weights=weights, beta=beta, **job.arguments()),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=None if job.adapter else new_adapter(job),
    )
    try:
        metrics = train(
            trainer, job, {"method": "dpo", "loss": loss, "beta": beta, "data": file_hash(pairs)}
        )
    except ValueError as error:
        if "Unknown loss type" not in str(error):
            raise
        raise InvalidInput(f"--loss: {error}") from None
    _card(job, pairs, "DPO", metrics, {"loss": loss, "beta": beta})


def run_kto(job: Job, rows: Path, *, beta: float = 0.1) -> None:
    """Like `run_dpo`, with TRL's KTO on rated replies; see `read_rated`."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    job = as_the_adapter(job)
    drawn = sample(read_rated(rows), job)
    tokenizer = load_tokenizer(job.base)
    data = Dataset.from_list(fitting(drawn, tokenizer, job.length, rows))
    trainer = KTOTrainer(
        model=load_adapted(job),
        args=KTOConfig(beta=beta, **job.arguments()),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=None if job.adapter else new_adapter(job),
    )
    metrics = train(trainer, job, {"method": "kto", "beta": beta, "data": file_hash(rows)})
    _card(job, rows, "KTO", metrics, {"beta": beta})


def parse_losses(text: str) -> tuple[list[str], list[float]]:
    """Names and weights of `name[:weight],…`. Raises `InvalidInput` on an invalid weight."""
    types, weights = [], []
    for part in text.split(","):
        name, _, weight = part.strip().partition(":")
        try:
            weights.append(float(weight or 1))
        except ValueError:
            raise InvalidInput(
                f"--loss has {part.strip()!r}; a loss type and its weight were expected, "
                "as in sigmoid:1,sft:0.5."
            ) from None
        types.append(name)
    return types, weights


def _card(
    job: Job, data: Path, method: str, metrics: dict[str, float], knobs: dict[str, Any]
) -> None:
    said = ", ".join(f"{name} {value}" for name, value in knobs.items())
    start = "an SFT adapter" if job.adapter else "the base"
    write_card(
        job,
        title=f"{method} adapter",
        method=method.lower(),
        data=data,
        metrics=metrics,
        text=f"{method} ({said}) from {start}, which is also the reference model.",
    )
