"""Draws the next token of every row. The draw of a row does not depend on other rows.

It works on logits and ids, not on text. The result equals that of the transformers processors in
their order: repetition penalty, temperature, top-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from empo_demo.engine.protocol import Decoding
from empo_demo.errors import InvalidInput

HEAD = 128
"""How many of the best tokens are sorted first; enough for nearly every top-p below 1."""
_BLOCK, _LARGE = 16, 32_768
_ALL = slice(None)


def check_decoding(decoding: Decoding) -> None:
    """Refuse values out of range. The error says what is allowed."""
    limits = {
        "temperature": (0 <= decoding.temperature <= 5, "from 0 (greedy) to 5"),
        "top_p": (0 < decoding.top_p <= 1, "above 0 and at most 1"),
        "repetition_penalty": (0 < decoding.repetition_penalty <= 5, "above 0 and at most 5"),
        "max_new_tokens": (1 <= decoding.max_new_tokens <= 4096, "from 1 to 4096"),
    }
    for name, (holds, allowed) in limits.items():
        if not holds:
            value = getattr(decoding, name)
            raise InvalidInput(
                "{name} is {value}; it may be {allowed}.", name=name, value=value, allowed=allowed
            )


@dataclass(slots=True)
class Draw:
    """What one row gives: its decoding, random numbers for the next tokens, and the ids so far."""

    decoding: Decoding
    luck: Sequence[float]
    seen: Sequence[int]


class Sampler:
    """Draws for a fixed set of rows; make a new one when rows join or leave.

    Tokens with equal scores are ordered by their id, in the head and in the whole vocabulary. On a
    GPU, a draw waits for the device once.
    """

    def __init__(self, rows: Sequence[Draw], vocabulary: int, device: torch.device) -> None:
        def column(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1)

        decodings = [row.decoding for row in rows]
        greedy = [d.temperature == 0 for d in decodings]
        self._all_greedy, self._any_greedy = all(greedy), any(greedy)
        self._greedy = torch.tensor(greedy, device=device).view(-1, 1)
        self._temperature = column([d.temperature or 1.0 for d in decodings])
        self._top_p = column([d.top_p for d in decodings])
        self._need = column([0.0 if d.temperature == 0 else d.top_p for d in decodings])
        horizon = max((len(row.luck) for row in rows), default=0)
        luck = [[*row.luck, *[0.0] * (horizon - len(row.luck))] for row in rows]
        self._luck = torch.tensor(luck, dtype=torch.float32, device=device)
        self._drawn = 0
        self._seen: torch.Tensor | None = None
        if any(d.repetition_penalty != 1.0 for d in decodings):
            self._penalty = column([d.repetition_penalty for d in decodings])
            self._seen = _seen([row.seen for row in rows], horizon, device)
            self._known = self._seen.shape[1] - horizon

    def draw(self, logits: torch.Tensor) -> tuple[torch.Tensor, list[int], list[bool]]:
        """(token ids (rows, 1), the same ids as a list, which rows have NaN or infinite logits).

        `logits` is (rows, vocabulary).
        """
        scores = logits.float()
        if self._seen is not None:
            known = scores.gather(1, self._seen)
            penalised = torch.where(known < 0, known * self._penalty, known / self._penalty)
            scores = scores.scatter(1, self._seen, penalised)
        broken = ~scores.amax(-1, keepdim=True).isfinite()
        if self._all_greedy:
            tokens, short = scores.argmax(-1, keepdim=True), None
            read = torch.cat([tokens, broken.long()], -1).tolist()
        else:
            scaled = scores / self._temperature
            chances = scaled.softmax(-1)
            tokens, short = self._sample(scaled, chances, HEAD)
            tokens = self._or_greedy(tokens, scores)
            read = torch.cat([tokens, broken.long(), short.long()], -1).tolist()
            few = [i for i, row in enumerate(read) if row[2] and not row[1]]
            if few:
                # Sorting all tokens is slow, so it is done for these rows only.
                rows = torch.tensor(few, device=scores.device)
                whole, _ = self._sample(scaled[rows], chances[rows], scores.shape[-1], rows)
                tokens[rows] = whole
                for i, token in zip(few, whole.view(-1).tolist(), strict=True):
                    read[i][0] = token
        if self._seen is not None:
            self._seen[:, self._known + self._drawn] = tokens.view(-1)
        self._drawn += 1
        return tokens, [row[0] for row in read], [bool(row[1]) for row in read]

    def _or_greedy(self, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self._any_greedy:
            return tokens
        return torch.where(self._greedy, scores.argmax(-1, keepdim=True), tokens)

    def _sample(
        self,
        scores: torch.Tensor,
        chances: torch.Tensor,
        head: int,
        rows: torch.Tensor | slice = _ALL,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Nucleus sampling (Holtzman et al. 2019) by inverting the distribution function.

        `scores` and `chances` belong to `rows`. Sorts only the `head` best tokens. The second
        result says which rows need more of them. Each row uses one uniform number, so sides with
        the same seed draw with the same numbers.
        """
        if head < scores.shape[-1]:
            index = best_of(scores, head).sort(dim=-1).values
            top, order = scores.gather(-1, index).sort(dim=-1, descending=True, stable=True)
            index = index.gather(-1, order)
        else:
            top, index = scores.sort(dim=-1, descending=True, stable=True)
        p = chances.gather(-1, index)
        mass = p.cumsum(-1)
        # A token is kept if the mass before it is below top_p. So the first is always kept.
        kept = (mass - p < self._top_p[rows]).sum(-1, keepdim=True).clamp_(min=1)
        reach = mass.gather(-1, kept - 1)
        luck = self._luck[rows, self._drawn : self._drawn + 1]
        place = (mass <= luck * reach).sum(-1, keepdim=True)
        tokens = index.gather(-1, torch.minimum(place, kept - 1))
        # Tokens that tie with the last token of the head may or may not be in the head.
        sure = (top > top[:, -1:]).sum(-1, keepdim=True)
        held = torch.where(sure > 0, mass.gather(-1, (sure - 1).clamp_(min=0)), 0.0)
        if head >= scores.shape[-1]:
            return tokens, torch.zeros_like(held, dtype=torch.bool)
        return tokens, held < self._need[rows]


def best_of(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The ids of the `count` best tokens of each row, in any order.

    In a large vocabulary they are looked for in those blocks whose best token is best. On a CPU,
    `topk` over all tokens takes up to forty times as long.
    """
    rows, tokens = scores.shape
    stride = tokens // _BLOCK
    if scores.device.type != "cpu" or tokens % _BLOCK or tokens < _LARGE:
        return scores.topk(count, dim=-1).indices
    # Block i holds the tokens i, i + stride, i + 2 * stride and so on.
    blocks = scores.view(rows, _BLOCK, stride).amax(1).topk(count, dim=-1).indices
    first = torch.arange(0, tokens, stride, device=scores.device)
    ids = (blocks.unsqueeze(1) + first.view(1, -1, 1)).view(rows, -1)
    return ids.gather(-1, scores.gather(-1, ids).topk(count, dim=-1).indices)


def _seen(rows: Sequence[Sequence[int]], more: int, device: torch.device) -> torch.Tensor:
    """(rows, tokens): the tokens that each row has had, with room for `more`.

    A row's first token fills its empty places: a token counts once, however often it was there.
    """
    each = [list(dict.fromkeys(ids)) or [0] for ids in rows]
    width = max(map(len, each), default=0) + more
    return torch.tensor([[*ids, *[ids[0]] * (width - len(ids))] for ids in each], device=device)
