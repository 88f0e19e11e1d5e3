"""Log probabilities of given replies of a contender, with one forward pass per batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat import encode_chat

if TYPE_CHECKING:
    from empo_demo.engine.weights.model_weights import Weights


@torch.inference_mode()
def score(
    weights: Weights,
    adapter: str | None,
    pairs: Sequence[tuple[Sequence[Message], str]],
    batch: int,
) -> list[tuple[float, int]]:
    """(sum of log probabilities, number of tokens) of each reply and its end token."""
    if weights.way != "batch":
        # The model's own code may compute a row differently in a batch.
        batch = 1
    rows = [_encode(weights, messages, reply) for messages, reply in pairs]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        for i, result in zip(part, _score(weights, adapter, [rows[i] for i in part]), strict=True):
            found[i] = result
    return found


def _score(
    weights: Weights, adapter: str | None, rows: list[tuple[list[int], int]]
) -> list[tuple[float, int]]:
    width = max(len(ids) for ids, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long, device=weights.device)
    for i, (ids, _) in enumerate(rows):
        tokens[i, : len(ids)] = torch.tensor(ids)
    if weights.rows is not None:
        one = [1.0] * len(rows)
        weights.rows.assign([adapter] * len(rows), one, weights.like, [width] * len(rows))
    # With right padding and causal attention, no real token sees the padding.
    logits = weights.model(input_ids=tokens, use_cache=False).logits
    found = []
    for i, (ids, reply) in enumerate(rows):
        first = len(ids) - reply
        log_p = torch.log_softmax(logits[i, first - 1 : len(ids) - 1].float(), -1)
        picked = log_p.gather(-1, tokens[i, first : len(ids), None])
        found.append((float(picked.sum()), reply))
    return found


def _encode(weights: Weights, messages: Sequence[Message], reply: str) -> tuple[list[int], int]:
    """(ids of prompt and reply, number of tokens of the reply with its end token)."""
    prompt = encode_chat(weights.tokenizer, messages)
    ids = weights.tokenizer(reply, add_special_tokens=False)["input_ids"]
    end = weights.tokenizer.eos_token_id
    body = [*ids, end] if end is not None else list(ids)
    kept = prompt[-max(1, weights.context - len(body)) :]
    return [*kept, *body], len(body)
