"""Chat messages to token ids. No text that a person wrote can open a turn.

Only the template's own tags become control tokens. In a message, a space breaks such tags before
the template is applied. The text that people see is never changed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat_template import template_of
from empo_demo.engine.text.thoughts import opens_thought

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STRIDE = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads. `opened`: whether the reply begins inside a thought."""

    ids: list[int]
    opened: bool


def read_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], dropped: int = 0
) -> Prompt:
    """`messages` without the first `dropped` exchanges, and the opening of the assistant's turn."""
    text = template_of(tokenizer).prompt(tokenizer, _without(messages, dropped))
    # The engine shortens or refuses prompts that are too long, so no warning is needed.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return Prompt([int(token) for token in cast("list[int]", ids)], opens_thought(text))


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], dropped: int = 0
) -> list[int]:
    """The token ids of `read_chat`."""
    return read_chat(tokenizer, messages, dropped).ids


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


def _without(messages: Sequence[Message], dropped: int) -> list[Message]:
    head = _has_system(messages)
    return [*messages[:head], *messages[head + 2 * dropped :]]


def _has_system(messages: Sequence[Message]) -> int:
    return int(bool(messages) and messages[0]["role"] == "system")
