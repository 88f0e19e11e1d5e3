"""The reference model's log-probabilities of DPO's replies: computed once, and kept.

They depend on the pairs and on the adapter at the start alone, so several trainings that differ in
beta, in the rate or in the losses share them, and a killed training does not compute them again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empo_demo.fingerprint import fingerprint
from empo_demo.progress import steps
from empo_demo.training.recipe import Job

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
        kept = _read(file)
        if len(kept) < len(rows):
            kept = _computed(trainer, rows, kept, file)
    for column, name in enumerate(SIDES):
        rows = rows.add_column(name, [float(pair[column]) for pair in kept])
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


def _write(file: Path, kept: Sequence[tuple[float, float]]) -> None:
    """Keep the figures; a disk that cannot costs only the next training's time."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(kept), encoding="utf8")
        part.replace(file)
    except OSError as error:
        log.warning("The reference's figures cannot be kept in %s: %s", file.parent, error)


def _computed(
    trainer: Any, rows: Any, kept: list[tuple[float, float]], file: Path
) -> list[tuple[float, float]]:
    size = trainer.args.per_device_train_batch_size
    device = trainer.accelerator.device
    # A killed computation goes on with whole batches, so that the padding is the same.
    kept = kept[: len(kept) // size * size]
    trainer.model.eval()
    with steps(-(-len(rows) // size)) as begin:
        for done, start in enumerate(range(len(kept), len(rows), size), len(kept) // size):
            begin("reference", done)
            batch = trainer.data_collator(
                [rows[i] for i in range(start, min(start + size, len(rows)))]
            )
            batch = {name: value.to(device) for name, value in batch.items()}
            chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
            kept += zip(chosen.tolist(), rejected.tolist(), strict=True)
            if (done + 1) % SAVE_EVERY == 0 or start + size >= len(rows):
                _write(file, kept)
    return kept
