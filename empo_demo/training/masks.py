"""Finds the tokens of a rendered dialogue that the assistant wrote, for any chat template.

For a loss on assistant turns, TRL needs `{% generation %}` marks in the template. It knows marked
versions of common templates, but none of Zephyr's, EmPO's base. This module finds the spans in the
rendered text: what an assistant's turn adds after its opening tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat_template import template_of
from empo_demo.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def assistant_tokens(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[list[int], list[bool]]:
    """Token ids of the whole dialogue, and which of them are assistant turns with their end tag.

    Raises `DataError` if the template does not append turn by turn.
    """
    template = template_of(tokenizer)
    safe = [{**m, "content": template.safe(tokenizer, m["content"])} for m in messages]
    whole = _render(tokenizer, safe)
    spans = []
    for i, message in enumerate(safe):
        if message["role"] != "assistant":
            continue
        before = _render(tokenizer, safe[:i], opening=True)
        # Leave out the line break that some templates put after the end tag.
        through = _render(tokenizer, safe[: i + 1]).rstrip()
        if not (through.startswith(before) and whole.startswith(through)):
            raise DataError(
                "The base's chat template rewrites earlier turns when later ones follow, so its "
                "assistant turns cannot be told apart; take a base whose template appends."
            )
        spans.append((len(before), len(through)))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    mask = [
        any(start <= first and first < last <= end for start, end in spans)
        for first, last in encoded["offset_mapping"]
    ]
    return list(encoded["input_ids"]), mask


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, opening: bool = False
) -> str:
    return str(
        tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opening)
    )
