"""The tiny base: tokenizer and Llama-shaped language model, from scratch or from a head start.

The training is deterministic and resumable: the order of the data depends only on seed and step. A
new checkpoint is written to a second file, which then replaces the last one. So a kill at any
moment costs at most one interval.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.errors import DataError, EngineError
from empo_demo.progress import steps
from empo_demo.training.corpus import empathetic_file, file_hash
from recipes.common import GENERAL
from recipes.tiny.corpus_rows import Corpus, batches
from recipes.tiny.start_model import start_model, start_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from recipes.tiny.corpus_rows import Row

SHARD = "9MB"


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """Hyperparameters. `tokens` is the padded size of a step, `micro` that of a forward pass."""

    passes: float = 2.0
    learning_rate: float = 2e-3
    warmup: int = 60
    weight_decay: float = 0.1
    tokens: int = 12_288
    micro: int = 4_096
    length: int = 256
    dropout: float = 0.1
    seed: int = 0
    checkpoint_seconds: float = 120.0


def run(data: Path, out: Path, init: Path | None, config: TinyConfig, *, threads: int = 0) -> None:
    """Train (or continue); write model, tokenizer and `training.json` to `out`."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = start_tokenizer(data, init)
    model: Any = start_model(tokenizer, init)
    corpus = Corpus(data, tokenizer, length=config.length, seed=config.seed)
    in_a_pass = _steps_per_pass(corpus.pass_of(0), config)
    trainer = _Trainer(model, config, total=round(in_a_pass * config.passes), folder=out)
    trainer.resume()
    trainer.train(corpus)
    model.to(torch.bfloat16).save_pretrained(out, max_shard_size=SHARD)
    tokenizer.save_pretrained(out)
    record = {"config": asdict(config), "init": init is not None, "data": _hashes(data)}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    # A run that is shorter than one interval has no checkpoint.
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


class _Trainer:
    """The loop: forward, backward, step, checkpoint, progress."""

    def __init__(
        self, model: PreTrainedModel, config: TinyConfig, *, total: int, folder: Path
    ) -> None:
        self.model, self.config, self.total = model, config, total
        self.step = 0
        self.loss = math.nan
        self._folder = folder / "checkpoint"
        self._optimizers = _optimizers(model, config)
        for layer in model.get_decoder().layers:
            for branch in (layer.self_attn.o_proj, layer.mlp.down_proj):
                branch.register_forward_hook(self._drop)

    def train(self, corpus: Any) -> None:
        saved, speed = time.monotonic(), 0.0
        with steps(self.total) as begin:
            for rows in self._steps(corpus):
                begin(f"tiny base, loss {self.loss:.3f}, {speed:,.0f} tokens/s", self.step)
                started = time.monotonic()
                tokens = self._advance(rows)
                speed = tokens / (time.monotonic() - started)
                if time.monotonic() - saved > self.config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()

    def _drop(self, branch: torch.nn.Module, given: object, out: torch.Tensor) -> torch.Tensor:
        """Dropout on the output of a branch, because the dialogues are read several times."""
        import torch

        return torch.nn.functional.dropout(out, self.config.dropout, branch.training)

    def _steps(self, corpus: Any) -> Iterator[list[list[Row]]]:
        """Yield the micro-batches of each step from the current one on."""

        accumulate = max(1, self.config.tokens // self.config.micro)
        position = number = 0
        while self.step < self.total:
            micro = batches(
                corpus.pass_of(number), self.config.micro, f"{self.config.seed} order {number}"
            )
            for start in range(0, len(micro), accumulate):
                if position == self.step < self.total:
                    yield micro[start : start + accumulate]
                position += 1
            number += 1

    def _advance(self, micro: list[list[Row]]) -> int:
        """One optimizer step; returns the number of tokens read."""
        import torch

        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self._schedule()
        # Seeded by the step, so that a resumed run has the same dropout as an uninterrupted one.
        torch.manual_seed(self.config.seed + self.step)
        weight = sum(sum(row.weights[1:]) for rows in micro for row in rows)
        total = 0.0
        for rows in micro:
            loss = _loss(self.model, rows) / weight
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise EngineError(
                f"The loss is not a number at step {self.step}; the last checkpoint is kept. "
                "Lower the learning rate and run the command again."
            )
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.loss = total if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * total
        return sum(len(row.ids) for rows in micro for row in rows)

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup))
        return warm * 0.5 * (1 + math.cos(math.pi * self.step / max(1, self.total)))

    def save(self) -> None:
        """Write a checkpoint to a second file, which then replaces the last one."""
        import torch

        state = {
            "step": self.step,
            "loss": self.loss,
            "total": self.total,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / "state.part"
        try:
            torch.save(state, part)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise DataError(
                f"The checkpoint cannot be written to {self._folder}: {error}. "
                "The one before it is kept; free some space and run the command again."
            ) from None
        part.replace(self._folder / "state.pt")

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one of a training with the same length."""
        import torch

        path = self._folder / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        if state["total"] != self.total:
            raise DataError(
                f"{path} is of another run ({state['total']} steps, not {self.total}); "
                "give another --output, or delete it."
            )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.loss = state["step"], state["loss"]


def _optimizers(model: PreTrainedModel, config: TinyConfig) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms, at one learning rate.

    After Jordan et al. 2024 (Muon), with the scale of Liu et al. 2025 (arXiv 2502.16982), so that
    both use AdamW's learning rate and decay.
    """
    import torch

    if not hasattr(torch.optim, "Muon"):
        raise DataError(
            f"torch {torch.__version__} has no Muon optimiser; the tiny base is trained with "
            "torch 2.9 or newer. All else runs with torch 2.8."
        )
    layers = list(model.get_decoder().layers.parameters())
    matrices = [p for p in layers if p.dim() == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    decay = config.weight_decay
    return [
        torch.optim.Muon(matrices, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.dim() > 1], "weight_decay": decay},
                {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            fused=True,
        ),
    ]


def _loss(model: PreTrainedModel, rows: list[Row]) -> torch.Tensor:
    """Weighted cross-entropy, summed over the targets of `rows` (right padded)."""
    import torch

    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        weights[i, : len(row.ids)] = torch.tensor(row.weights)
    # With right padding and a causal model, no real token sees the padding: no mask is needed.
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets, weights = ids[:, 1:], weights[:, 1:]
    counted = weights > 0
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.get_output_embeddings()(hidden[counted])
    each = torch.nn.functional.cross_entropy(logits.float(), targets[counted], reduction="none")
    return (each * weights[counted]).sum()


def _steps_per_pass(rows: list[Row], config: TinyConfig) -> int:

    # The last step of a pass may be shorter, so that a small corpus gives a step too.
    return math.ceil(len(batches(rows, config.micro, "")) / max(1, config.tokens // config.micro))


def _hashes(data: Path) -> dict[str, str]:
    files = (empathetic_file(data, "train"), data / GENERAL)
    return {path.name: file_hash(path) for path in files}
