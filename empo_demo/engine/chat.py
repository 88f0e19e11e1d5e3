"""Chat messages to token ids. No text that a person wrote can open a turn.

Only the template's own tags become control tokens. In a message, a space breaks such tags before
the template is applied. The text that people see is never changed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from empo_demo.dialogue import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STRIDE = 4
_TAGS = re.compile(r"<(?=\|?/?[a-z_]{1,24}\|?>)|\[(?=/?INST\])|<(?=</?SYS>)", re.IGNORECASE)
"""Role and control tags of the common templates. Some tokenizers read them from plain text and
would take a typed tag for one of the template."""


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], dropped: int = 0
) -> list[int]:
    """Token ids of `messages`, followed by the opening of the assistant's turn.

    The first `dropped` exchanges are left out.
    """
    messages = _without(messages, dropped)
    safe = [{**m, "content": defuse(m["content"], tokenizer.all_special_tokens)} for m in messages]
    try:
        return _render(tokenizer, safe)
    except Exception:
        folded = fold_system(safe)
        if folded == safe:
            raise
        return _render(tokenizer, folded)


def dropped_exchanges(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], limit: int
) -> int:
    """How many of the oldest exchanges to leave out so that the prompt has at most `limit` tokens.

    They are left out STRIDE at a time where that is enough. So for some turns a long dialogue
    begins with the same tokens, and the kept prefix is used again.
    """
    head = _has_system(messages)
    exchanges = (len(messages) - head - 1) // 2
    strides = range(0, exchanges, STRIDE)
    after = strides[-1] + 1 if strides else 0
    for dropped in itertools.chain(strides, range(after, exchanges)):
        if len(encode_chat(tokenizer, messages, dropped)) <= limit:
            return dropped
    return max(0, exchanges)


def opening_tags(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The tag that opens the user's turn in the template, if it is plain text.

    A model that writes this tag invents the user's next turn, so the tag ends the reply.
    """
    mark = "X0MARK0X"
    text = tokenizer.apply_chat_template([{"role": "user", "content": mark}], tokenize=False)
    before = str(text).partition(mark)[0]
    for token in tokenizer.all_special_tokens:
        before = before.rpartition(token)[2] if token else before
    tag = before.strip().rpartition("\n")[2].strip()
    return (tag,) if re.fullmatch(r"[<\[].{1,30}[>\]]", tag) else ()


def _without(messages: Sequence[Message], dropped: int) -> list[Message]:
    head = _has_system(messages)
    return [*messages[:head], *messages[head + 2 * dropped :]]


def _has_system(messages: Sequence[Message]) -> int:
    return int(bool(messages) and messages[0]["role"] == "system")


def defuse(text: str, special: Sequence[str]) -> str:
    """`text` with a space inside every string that a template could take for a tag."""
    for token in special:
        if token and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return _TAGS.sub(lambda match: match[0] + " ", text)


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: the system text goes before the first user turn."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    ids = tokenizer.apply_chat_template(
        list(messages),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        # The engine shortens or refuses prompts that are too long, so no warning is needed.
        tokenizer_kwargs={"verbose": False},
    )
    return [int(token) for token in cast("list[int]", ids)]
