"""The model card of a trained adapter, in the format of the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from empo_demo.training.corpus import file_hash
from empo_demo.training.recipe import Job


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
