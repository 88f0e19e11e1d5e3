"""One row's next token. The draw depends on the row alone, never on its batch mates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from empo_demo.errors import InvalidInput

if TYPE_CHECKING:
    from empo_demo.engine.batch import Row
    from empo_demo.engine.protocol import Decoding


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


def pick(row: Row, scores: torch.Tensor) -> int:
    """Draw from `scores` (vocabulary,), as transformers' processors do and in their order.

    Repetition penalty over prompt and reply, then temperature, then the smallest set of tokens
    with probability `top_p` (Holtzman et al. 2019), then one exponential race (Gumbel trick).
    """
    decoding = row.request.decoding
    if decoding.repetition_penalty != 1.0:
        scores = _penalised(scores, row, decoding.repetition_penalty)
    if decoding.temperature == 0:
        return int(scores.argmax())
    probabilities = torch.softmax(scores / decoding.temperature, -1)
    if decoding.top_p < 1:
        ordered, index = probabilities.sort(descending=True)
        # A token stays while the mass before it is below top_p: the first always does.
        outside = ordered.cumsum(-1) - ordered >= decoding.top_p
        probabilities = probabilities.index_fill(0, index[outside], 0.0)
    race = torch.empty_like(probabilities).exponential_(generator=row.generator)
    return int((probabilities / race).argmax())


def _penalised(scores: torch.Tensor, row: Row, penalty: float) -> torch.Tensor:
    seen = torch.tensor(sorted({*row.prompt, *row.produced}))
    known = scores[seen]
    return scores.index_copy(0, seen, torch.where(known < 0, known * penalty, known / penalty))
