"""A model's tokenizer, with the chat template that a contender needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from empo_demo.errors import EngineError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"The tokenizer of {name} cannot be loaded: {first_line(error)}"
        ) from None
    if tokenizer.chat_template is None:
        raise EngineError(
            f"The tokenizer of {name} has no chat template; use a chat model, or save a template."
        )
    return tokenizer
