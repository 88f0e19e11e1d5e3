"""Chat messages to token ids, so that nothing a person wrote can open a turn.

Only the template's own tags become control tokens: the same strings inside a message are broken
by a space before the template sees them. What is shown to people is never changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from empo_demo.dialogue import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TAGS = re.compile(r"<(?=\|?/?[a-z_]{1,24}\|?>)|\[(?=/?INST\])|<(?=</?SYS>)", re.IGNORECASE)
"""Role and control tags of the common templates; some tokenizers read them as plain text, and
would take a typed one for the template's."""


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of `messages` with the opening of the assistant's turn behind them."""
    safe = [{**m, "content": defuse(m["content"], tokenizer.all_special_tokens)} for m in messages]
    try:
        return _render(tokenizer, safe)
    except Exception:
        folded = fold_system(safe)
        if folded == safe:
            raise
        return _render(tokenizer, folded)


def fit_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], limit: int
) -> list[int]:
    """As `encode_chat`, without the oldest exchanges where the prompt would pass `limit` tokens."""
    kept = list(messages)
    head = 1 if kept and kept[0]["role"] == "system" else 0
    ids = encode_chat(tokenizer, kept)
    while len(ids) > limit and len(kept) - head > 2:
        del kept[head : head + 2]
        ids = encode_chat(tokenizer, kept)
    return ids[-limit:] if len(ids) > limit else ids


def defuse(text: str, special: Sequence[str]) -> str:
    """`text` with a space inside everything that a template could take for a tag."""
    for token in special:
        if token and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return _TAGS.sub(lambda match: match[0] + " ", text)


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: its text in front of the first user turn."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    ids = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return [int(token) for token in cast("list[int]", ids)]
