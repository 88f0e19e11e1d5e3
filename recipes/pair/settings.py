"""The settings of the shipped pair, and those that were tried for its DPO."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from empo_demo.contenders.load_roster import PRESETS
from empo_demo.smollm2.package import SMOLLM2
from empo_demo.training.recipe import Job

HINTS_SHARE = 0.35
"""Share of the dialogues and pairs with the SEM's compact hint, so that the adapters know it."""
PAIRS = 3_000
SAME_EMOTION = 0.2
"""Share of the rejected replies that are right in feeling and wrong in content."""
WATCHED = 240
"""Pairs of folds 0 and 1 of ED-valid; the figures of the pair are measured on fold 2."""
REPORTED_FOLD = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """What the short runs decide on: DPO's beta, its rate, and the weight of the chosen's loss."""

    beta: float
    rate: float
    sft_weight: float

    @property
    def name(self) -> str:
        return f"beta{self.beta:g}-rate{self.rate:g}-sft{self.sft_weight:g}"

    @property
    def loss(self) -> str:
        return f"sigmoid,sft:{self.sft_weight:g}" if self.sft_weight else "sigmoid"


TRIED = (
    Choice(0.1, 1e-4, 0.2),
    Choice(0.05, 1e-4, 0.2),
    Choice(0.1, 5e-5, 0.2),
    Choice(0.1, 1e-4, 0.0),
)
CHOSEN = TRIED[0]
SHORT = 40
"""Steps of a short run."""


def system_prompt() -> str:
    """The prompt with which the pair is served."""
    # As text, since the preset names the adapters that are yet to be made.
    return str(tomllib.loads(PRESETS["smollm2"].read_text(encoding="utf8"))["system_prompt"])


def sft_job(out: Path, start: Path | None) -> Job:
    """0.165 passes over the dialogues from the adapter `start`, half a pass without one."""
    return Job(
        str(SMOLLM2.folder),
        out,
        adapter=start,
        epochs=0.165 if start else 0.5,
        learning_rate=4e-4,
        dropout=0.0,
        batch=8,
        micro=8,
        length=192,
        warmup=20,
        schedule="linear",
        adam_beta2=0.98,
        save_steps=50,
        system_prompt=system_prompt(),
        hints_share=HINTS_SHARE,
    )


def dpo_job(out: Path, sft: Path, choice: Choice, *, steps: int = 0) -> Job:
    """One pass over the pairs, or `steps` steps."""
    return Job(
        str(SMOLLM2.folder),
        out,
        adapter=sft,
        learning_rate=choice.rate,
        batch=12,
        micro=12,
        length=160,
        warmup=10,
        schedule="linear",
        adam_beta2=0.98,
        save_steps=40,
        steps=steps,
        system_prompt=system_prompt(),
        hints_share=HINTS_SHARE,
    )
