"""Checks a tiny base: its perplexity on human listener turns, and whether its replies are sound.

Both figures are measured on ED-valid, which the base was not trained on, and written beside it.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Message
from empo_demo.errors import DataError
from empo_demo.metrics.statistics import interval_of
from empo_demo.progress import progress
from empo_demo.training.corpus import Conversation, read_conversations
from recipes.tiny.corpus_rows import encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEMPERATURE, TOP_P, LONGEST = 0.7, 0.9, 60
NGRAM = 4


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood per token, end tokens included.

    `interval` is 95 %, bootstrapped over dialogues, because the turns of one are not independent.
    """

    value: float
    interval: tuple[float, float]
    tokens: int
    dialogues: int


@dataclass(frozen=True, slots=True)
class Replies:
    """Shares in [0, 1] of `n` sampled replies; `sound` are those that pass all three."""

    n: int
    empty: float
    unended: float
    repeating: float
    sound: float
    words_mean: float


def run(folder: Path, data: Path, *, dialogues: int, replies: int, seed: int) -> dict[str, Any]:
    """Both figures of the model in `folder`, also written to its `check.json`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} holds no model; give a folder with a config.json.")
    valid = read_conversations(data, "valid")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    contexts = [c.turns[: c.target] for c in valid if c.target is not None]
    report = {
        "perplexity": asdict(perplexity(model, tokenizer, valid[:dialogues], seed=seed)),
        "replies": asdict(sampled(model, tokenizer, contexts, replies, seed=seed)),
    }
    (folder / "check.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")
    return report


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    *,
    batch: int = 32,
    seed: int = 0,
) -> Perplexity:
    """The perplexity of the listener turns of `conversations`, each after all turns before it."""
    import torch

    longest = model.config.max_position_embeddings
    rows = [encode(tokenizer, c.turns, longest) for c in conversations]
    rows.sort(key=lambda row: len(row.ids))
    sums: list[tuple[float, int]] = []
    for start in progress(range(0, len(rows), batch), "perplexity"):
        part = rows[start : start + batch]
        width = max(len(row.ids) for row in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        for i, row in enumerate(part):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
        with torch.inference_mode():
            # With right padding and causal attention, no real token sees the padding.
            logits = model(input_ids=ids, use_cache=False).logits
        for i, row in enumerate(part):
            theirs = torch.tensor([weight == 1.0 for weight in row.weights[1:]])
            targets = torch.tensor(row.ids[1:])[theirs]
            scores = logits[i, : len(row.ids) - 1][theirs]
            loss = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
            sums.append((float(loss), len(targets)))
    tokens = sum(count for _, count in sums)
    value = math.exp(sum(loss for loss, _ in sums) / tokens)
    return Perplexity(value, _interval(sums, seed), tokens, len(sums))


def _interval(sums: Sequence[tuple[float, int]], seed: int) -> tuple[float, float]:
    import numpy as np

    array = np.asarray(sums)

    def perplexity_of(rows: Any) -> float:
        loss, tokens = array[rows].sum(axis=0)
        return math.exp(loss / tokens)

    bounds = interval_of(perplexity_of, range(len(array)), resamples=1000, seed=seed)
    assert bounds is not None, "every draw has a perplexity"
    return bounds


def sampled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[Sequence[Message]],
    count: int,
    *,
    batch: int = 50,
    seed: int = 0,
) -> Replies:
    """Replies to `count` drawn contexts (T 0.7, top-p 0.9, at most 60 tokens, nothing blocked)."""
    import torch

    chosen = random.Random(seed).sample(list(contexts), min(count, len(contexts)))
    chosen.sort(key=lambda context: sum(len(turn["content"]) for turn in context))
    tokenizer.padding_side = "left"
    torch.manual_seed(seed)
    replies: list[list[int]] = []
    for start in progress(range(0, len(chosen), batch), "replies"):
        prompts: Any = tokenizer.apply_chat_template(
            [list(context) for context in chosen[start : start + batch]],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            generated = model.generate(  # type: ignore[operator]
                **prompts,
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                top_k=0,
                max_new_tokens=LONGEST,
                pad_token_id=tokenizer.pad_token_id,
            )
        replies += generated[:, prompts["input_ids"].shape[1] :].tolist()
    return _judge(tokenizer, replies)


def _judge(tokenizer: PreTrainedTokenizerBase, replies: Sequence[Sequence[int]]) -> Replies:
    end = tokenizer.eos_token_id
    bodies = [list(ids[: ids.index(end)]) if end in ids else list(ids) for ids in replies]
    texts = [str(tokenizer.decode(body, skip_special_tokens=True)).strip() for body in bodies]
    faults = [
        (not text, end not in ids, _repeats(text)) for text, ids in zip(texts, replies, strict=True)
    ]
    n = len(faults)
    empty, unended, repeating = (sum(column) / n for column in zip(*faults, strict=True))
    sound = sum(not any(fault) for fault in faults) / n
    return Replies(
        n, empty, unended, repeating, sound, sum(len(text.split()) for text in texts) / n
    )


def _repeats(text: str) -> bool:
    """Whether a sequence of four words occurs twice."""
    words = text.lower().split()
    grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return len(set(grams)) < len(grams)
