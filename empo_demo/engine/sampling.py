"""The next token of every row at once. A row's draw depends on the row alone, never on its mates.

Works on logits and ids; knows nothing of text. Equals transformers' processors in their order:
repetition penalty, temperature, top-p.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from empo_demo.engine.protocol import Decoding
from empo_demo.errors import InvalidInput

HEAD = 128
"""Tokens looked at before all are sorted; enough for nearly every top-p below 1."""


def check_decoding(decoding: Decoding) -> None:
    """Refuse values that mean nothing; says which, and what may stand there."""
    limits = {
        "temperature": (0 <= decoding.temperature <= 5, "from 0 (greedy) to 5"),
        "top_p": (0 < decoding.top_p <= 1, "above 0 and at most 1"),
        "repetition_penalty": (0 < decoding.repetition_penalty <= 5, "above 0 and at most 5"),
        "max_new_tokens": (1 <= decoding.max_new_tokens <= 4096, "from 1 to 4096"),
    }
    for name, (holds, allowed) in limits.items():
        if not holds:
            raise InvalidInput(f"{name} is {getattr(decoding, name)}; it may be {allowed}.")


@dataclass(slots=True)
class Draw:
    """What one row brings: how to draw, its own generator, and the ids so far."""

    decoding: Decoding
    generator: random.Random
    seen: Sequence[int]


class Sampler:
    """Draws for a fixed set of rows; make a new one when rows join or leave."""

    def __init__(self, rows: Sequence[Draw], vocabulary: int, device: torch.device) -> None:
        def column(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1)

        decodings = [row.decoding for row in rows]
        self._rows, self._device = list(rows), device
        self._greedy = [d.temperature == 0 for d in decodings]
        self._temperature = column([d.temperature or 1.0 for d in decodings])
        self._top_p = column([d.top_p for d in decodings])
        self._need = column([0.0 if d.temperature == 0 else d.top_p for d in decodings])
        self._seen: torch.Tensor | None = None
        if any(d.repetition_penalty != 1.0 for d in decodings):
            self._penalty = column([d.repetition_penalty for d in decodings])
            self._seen = torch.zeros(len(rows), vocabulary, dtype=torch.bool, device=device)
            for i, row in enumerate(rows):
                self._seen[i, torch.tensor(sorted(set(row.seen)), device=device)] = True

    def draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Token ids (rows, 1) from `logits` (rows, vocabulary)."""
        scores = logits.float()
        if self._seen is not None:
            penalised = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
            scores = torch.where(self._seen, penalised, scores)
        if all(self._greedy):
            tokens = scores.argmax(-1, keepdim=True)
        else:
            tokens = self._sample(scores)
            if any(self._greedy):
                greedy = torch.tensor(self._greedy, device=self._device).view(-1, 1)
                tokens = torch.where(greedy, scores.argmax(-1, keepdim=True), tokens)
        if self._seen is not None:
            self._seen.scatter_(1, tokens, True)
        return tokens

    def _sample(self, scores: torch.Tensor) -> torch.Tensor:
        """Nucleus sampling (Holtzman et al. 2019) by inverting the distribution function.

        One uniform number a row: the same seed on both sides is the same luck on both sides.
        """
        scores = scores / self._temperature
        total = scores.logsumexp(-1, keepdim=True)
        top, index = scores.topk(min(HEAD, scores.shape[-1]), dim=-1)
        p = (top - total).exp_()
        if bool((p.sum(-1, keepdim=True) < self._need).any()):
            top, index = scores.sort(dim=-1, descending=True)
            p = (top - total).exp_()
        mass = p.cumsum(-1)
        # A token stays while the mass before it is below top_p: the first always does.
        kept = (mass - p < self._top_p).sum(-1, keepdim=True)
        reach = mass.gather(-1, kept - 1)
        luck = torch.tensor([[row.generator.random()] for row in self._rows], device=self._device)
        place = (mass <= luck * reach).sum(-1, keepdim=True)
        return index.gather(-1, torch.minimum(place, kept - 1))
