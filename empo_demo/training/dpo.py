"""Preference training: DPO on pairs, KTO on rated replies. The SFT model is the reference.

The reference's log-probabilities of DPO's replies depend on the pairs and on the adapter at the
start alone. They are computed once and kept, so several trainings that differ in beta, in the rate
or in the losses share them, and a killed training does not compute them again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat_template import template_of
from empo_demo.errors import InvalidInput
from empo_demo.files import fingerprint
from empo_demo.progress import steps
from empo_demo.training.corpus import file_hash
from empo_demo.training.pair_file import fitting, read_pairs, read_rated
from empo_demo.training.recipe import (
    Job,
    as_the_adapter,
    in_batches,
    load_adapted,
    new_adapter,
    sample,
    tokenizer_of,
)
from empo_demo.training.system_turn import drawn, read_hints, with_system
from empo_demo.training.train import (
    Rows,
    begin,
    kept_rows,
    prepared,
    train,
    write_card,
)
from empo_demo.training.watch import watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Watched:
    """Pairs on which a training is watched every `every` steps: a seeded draw of `size`."""

    pairs: Path
    size: int = 240
    every: int = 40


ANSWERED = 32
"""The prompts of the watched pairs that the model answers."""


def run_dpo(
    job: Job,
    pairs: Path,
    *,
    loss: str = "sigmoid",
    beta: float = 0.05,
    watched: Watched | None = None,
) -> None:
    """Continue the SFT adapter with TRL's DPO. The reference is the adapter at the start.

    Without `job.adapter`, a new adapter is trained and the base is the reference. `loss` is a
    loss type of TRL, or several with weights, such as `sigmoid:1,sft:0.5`.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    job = as_the_adapter(job)
    types, weights = parse_losses(loss)
    begin(job, method="dpo", loss=loss, beta=beta, data=file_hash(pairs))
    tokenizer = tokenizer_of(job)
    rows = kept_rows(job, "train", lambda: _ordered(job, tokenizer, pairs))
    held = kept_rows(job, "valid", lambda: _drawn(job, tokenizer, watched)) if watched else None
    often: dict[str, Any] = {}
    if watched:
        often = {"eval_strategy": "steps", "eval_steps": watched.every, "eval_on_start": True}
    trainer = DPOTrainer(
        model=load_adapted(job),
        args=DPOConfig(loss_type=types, loss_weights=weights, beta=beta, **job.in_order(), **often),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held) if held else None,
        processing_class=tokenizer,
        peft_config=None if job.adapter else new_adapter(job),
    )
    _refer(prepared(trainer), job, tokenizer)
    trainer.add_callback(
        watch(job.out, [row["prompt"] for row in (held or [])[:ANSWERED]], job.seed)
    )
    try:
        metrics = train(trainer, job)
    except ValueError as error:
        if "Unknown loss type" not in str(error):
            raise
        raise InvalidInput(f"--loss: {error}") from None
    _card(job, pairs, "DPO", metrics, {"loss": loss, "beta": beta})


def _ordered(job: Job, tokenizer: PreTrainedTokenizerBase, pairs: Path) -> Rows:
    """The pairs as the model reads them, in the order of training."""
    known = read_pairs(pairs)
    rows = _fitting(job, tokenizer, sample(known, job), pairs)
    lengths = [sum(len(turn["content"]) for turn in _texts(row)) for row in rows]
    wanted = job.wanted(len(known))
    return [rows[i] for i in in_batches(lengths, job.per_step, wanted=wanted, seed=job.seed)]


def _drawn(job: Job, tokenizer: PreTrainedTokenizerBase, watched: Watched) -> Rows:
    rows = read_pairs(watched.pairs)
    random.Random(job.seed).shuffle(rows)
    return _fitting(job, tokenizer, rows[: watched.size], watched.pairs)


def _fitting(job: Job, tokenizer: PreTrainedTokenizerBase, rows: Rows, pairs: Path) -> Rows:
    """The rows with their system turns, for a share of them with the SEM's hint."""
    wanted = drawn(len(rows), job.hints_share, job.seed)
    hinted = [i for i, its in enumerate(wanted) if its]
    hints = dict(zip(hinted, read_hints([rows[i]["prompt"] for i in hinted]), strict=True))
    full = [
        {**row, "prompt": with_system(row["prompt"], job.system_prompt, hints.get(i, ""))}
        for i, row in enumerate(rows)
    ]
    return fitting(full, tokenizer, job.length, pairs)


def _texts(row: Mapping[str, Any]) -> list[Message]:
    return [*row["prompt"], *row["chosen"], *row["rejected"]]


def _refer(trainer: Any, job: Job, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the trainer's data the log-probabilities of the reference, which it then need not run.

    A template may write a line break after a reply's end. The model never writes it, so it is cut.
    """
    ends = template_of(tokenizer).ends

    def ended(row: dict[str, Any]) -> dict[str, Any]:
        cut = {}
        for name in ("chosen_ids", "rejected_ids"):
            last = max((i for i, token in enumerate(row[name]) if token in ends), default=None)
            cut[name] = row[name] if last is None else row[name][: last + 1]
        return cut

    key = reference_key(job)
    for name in ("train_dataset", "eval_dataset"):
        rows = getattr(trainer, name)
        if rows is not None:
            setattr(trainer, name, with_reference(trainer, rows.map(ended), key))
    trainer.precompute_ref_logps = True


def run_kto(job: Job, rows: Path, *, beta: float = 0.1) -> None:
    """Like `run_dpo`, with TRL's KTO on rated replies; see `read_rated`."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    job = as_the_adapter(job)
    begin(job, method="kto", beta=beta, data=file_hash(rows))
    tokenizer = tokenizer_of(job)
    chosen = sample(read_rated(rows), job)
    data = Dataset.from_list(_fitting(job, tokenizer, chosen, rows))
    trainer = KTOTrainer(
        model=load_adapted(job),
        args=KTOConfig(beta=beta, **job.arguments()),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=None if job.adapter else new_adapter(job),
    )
    metrics = train(prepared(trainer), job)
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


log = logging.getLogger(__name__)
SAVE_EVERY = 50
"""Batches between two savings."""
SIDES = ("ref_chosen_logps", "ref_rejected_logps")


def with_reference(trainer: Any, rows: Any, key: str) -> Any:
    """The data set `rows` of TRL's `trainer`, with the columns that its DPO reads.

    `key` names the reference model. Only the first of several processes computes; the others wait.
    """
    from accelerate import PartialState

    file = _file(key, rows)
    with PartialState().main_process_first():
        figures = _read(file)
        if len(figures) < len(rows):
            figures = _computed(trainer, rows, figures, file)
    for column, name in enumerate(SIDES):
        rows = rows.add_column(name, [float(pair[column]) for pair in figures])
    return rows


def reference_key(job: Job) -> str:
    """What the figures depend on beside the rows: the base, the adapter, the length, the type."""
    adapter = fingerprint(str(job.adapter)) if job.adapter else ""
    base = fingerprint(job.base) or job.base
    return f"{base} {adapter} {job.length} {job.quantization}"


def _file(key: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    from huggingface_hub import constants

    total = hashlib.sha256(key.encode())
    for row in rows:
        total.update(
            repr([row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]).encode()
        )
    root = Path(constants.HF_ASSETS_CACHE).expanduser() / "empo-arena" / "reference"
    return root / f"{total.hexdigest()[:24]}.json"


def _read(file: Path) -> list[tuple[float, float]]:
    try:
        return [(float(a), float(b)) for a, b in json.loads(file.read_text(encoding="utf8"))]
    except (OSError, ValueError, TypeError):
        return []


def _write(file: Path, figures: Sequence[tuple[float, float]]) -> None:
    """Keep the figures; a disk that cannot costs only the next training's time."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(figures), encoding="utf8")
        part.replace(file)
    except OSError as error:
        log.warning("The reference's figures cannot be kept in %s: %s", file.parent, error)


def _computed(
    trainer: Any, rows: Any, figures: list[tuple[float, float]], file: Path
) -> list[tuple[float, float]]:
    size = trainer.args.per_device_train_batch_size
    device = trainer.accelerator.device
    # A killed computation goes on with whole batches, so that the padding is the same.
    figures = figures[: len(figures) // size * size]
    trainer.model.eval()
    with steps(-(-len(rows) // size)) as begin:
        for done, start in enumerate(range(len(figures), len(rows), size), len(figures) // size):
            begin("reference", done)
            batch = trainer.data_collator(
                [rows[i] for i in range(start, min(start + size, len(rows)))]
            )
            batch = {name: value.to(device) for name, value in batch.items()}
            chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
            figures += zip(chosen.tolist(), rejected.tolist(), strict=True)
            if (done + 1) % SAVE_EVERY == 0 or start + size >= len(rows):
                _write(file, figures)
    return figures
