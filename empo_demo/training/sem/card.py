"""The SEM's model card, in the Hub's format: what it is, how made, what it reaches and does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empo_demo.training.sem.corpora import hashes

_HEAD = """---
license: cc-by-nc-4.0
language: en
pipeline_tag: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2
tags: [empathy, emotion, emotion-cause, epitome, hef]
---

# The small empathetic model (SEM)

One encoder of six layers (width 384, {pieces:,} word pieces) with five heads: the 32 emotions of
EmpatheticDialogues from the mean of the last layer, a weight per word for what caused the emotion,
and the three EPITOME mechanisms (levels 0 to 2) of a response to a context. One forward pass per
text. It starts from all-MiniLM-L6-v2 (Apache-2.0), which is needed for training only.

For research and non-commercial use: it was trained on EmpatheticDialogues (CC BY-NC 4.0) and
EPITOME (non-commercial academic). It reads English from crowd workers and forum posts, is wrong
about half of the time when it must name one of 32 close emotions, and is no clinical instrument:
it must not be used to judge anyone's state of mind.

"""
_METHOD = """## How it was made

`python -m empo_demo train sem --data DIR --out DIR`

1. The vocabulary is pruned to the data's most used pieces and all single characters.
2. Emotions: full fine-tuning on every listener turn's context and on the situation texts of
   ED-train; labels smoothed, part of the smoothing towards related emotions; rates fall by layer.
   Several runs from one start, in different orders, whose weights are averaged (a model soup,
   arXiv 2203.05482).
3. The encoder is averaged with the weights that it started from (WiSE-FT, arXiv 2109.01903), at
   the share with the least calibrated log-loss on fold 1, and frozen.
4. The cause head is fitted on fold 0 of ED-valid. EPITOME shares the encoder's first two layers
   and has the other four for itself, as copies fitted on all EPITOME pairs: each mechanism reads
   the response where its rationale (learnt from the annotated ones) is likeliest.
5. Temperature (cross-entropy) and the display threshold of cause words (F1) on fold 1.

ED-valid's dialogues are split by `conv_id` into three folds for all heads together: 0 trains the
cause head, 1 calibrates, and only fold 2 is reported on.

"""


def write_card(
    out: Path, data: Path, figures: Sequence[Mapping[str, Any]], notes: str = ""
) -> None:
    """Write `README.md` into `out` from its `config.json`, `sem.json` and the figures."""
    pieces = json.loads((out / "config.json").read_text(encoding="utf8"))["vocab_size"]
    meta = json.loads((out / "sem.json").read_text(encoding="utf8"))
    text = _HEAD.format(pieces=pieces) + "## Figures\n\n" + table(figures) + "\n" + missed(figures)
    if notes:
        text += f"\n{notes.strip()}\n"
    text += "\n" + _METHOD + _settings(meta) + _hashes(data)
    (out / "README.md").write_text(text, encoding="utf8")


def table(figures: Sequence[Mapping[str, Any]]) -> str:
    """The figures as a Markdown table, each with n, interval, baseline, ceiling and target."""
    lines = [
        "| figure | value | 95 % interval | n | baseline | ceiling | needed (aim) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures:
        target = "–" if row["needed"] is None else f"{row['needed']:g} ({row['aim']:g})"
        lines.append(
            f"| {row['name']} | {_number(row['value'])} | {_number(row['low'])} to "
            f"{_number(row['high'])} | {row['n']:,} | {_number(row['baseline'])} | "
            f"{_number(row['ceiling'])} | {target} |"
        )
    baselines = (
        "Baselines: the most frequent labels of the training data; random words that are no stop "
        "words; always fully sure (ECE); the majority level. Ceiling: what an oracle would reach; "
        "for emotions people agree far less than 100 %."
    )
    return "\n".join([*lines, "", baselines, ""])


def missed(figures: Sequence[Mapping[str, Any]]) -> str:
    """One plain sentence on the needed values that were not reached."""
    names = [
        f"{row['name']} ({_number(row['value'])})" for row in figures if row["reached"] is False
    ]
    if not names:
        return "Every needed value was reached.\n"
    return f"**Not reached:** {'; '.join(names)}.\n"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if abs(value) > 1.5 else f"{value:.3f}"


def _settings(meta: Mapping[str, Any]) -> str:
    from empo_demo.training.sem import heads, pretrained

    rows = {
        "encoder rate, stage one (top layer)": pretrained.ENCODER_RATE,
        "head rate": pretrained.HEAD_RATE,
        "rate decay per layer": pretrained.LAYER_DECAY,
        "cause head: rate, epochs": f"{heads.CAUSE_RATE}, {heads.CAUSE_EPOCHS}",
        "EPITOME: layer rate, head rate, epochs, weight of rationales": (
            f"{heads.LAYER_RATE}, {heads.LEVEL_RATE}, {heads.LEVEL_EPOCHS}, {heads.RATIONALE}"
        ),
        "vocabulary": pretrained.VOCABULARY,
        **meta,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines, "", ""])


def _hashes(data: Path) -> str:
    lines = [f"| `{name}` | `{digest}` |" for name, digest in hashes(data).items()]
    return "\n".join(["| data | SHA-256 |", "|---|---|", *lines, ""])
