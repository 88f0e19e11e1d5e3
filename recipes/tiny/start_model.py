"""The start of the tiny base: shape and tokenizer from scratch, or those of a head start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.errors import DataError
from empo_demo.training.corpus import read_conversations
from recipes.common import read_general

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VOCABULARY = 8192
SPECIAL = ("<|pad|>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% generation %}{{ m['content'] + '</s>' }}{% endgeneration %}{% else %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def start_model(tokenizer: PreTrainedTokenizerBase, init: Path | None) -> PreTrainedModel:
    """The head start in 32 bits, or a new Llama with 17 M parameters."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if init is not None:
        return AutoModelForCausalLM.from_pretrained(init, dtype=torch.float32).train()
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=8,
        num_attention_heads=6,
        intermediate_size=1024,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        rms_norm_eps=1e-5,
    )
    return LlamaForCausalLM(shape).float().train()


def start_tokenizer(data: Path, init: Path | None) -> PreTrainedTokenizerBase:
    """The head start's tokenizer, or a byte-level BPE trained on the dialogues."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if init is not None:
        if not (init / "config.json").is_file():
            raise DataError(f"--init {init} holds no model; give a folder with a config.json.")
        return AutoTokenizer.from_pretrained(init)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(data), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="</s>",
        extra_special_tokens=list(SPECIAL[2:]),
        padding_side="left",
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _texts(data: Path) -> Iterator[str]:

    for conversation in read_conversations(data, "train"):
        yield from (turn["content"] for turn in conversation.turns)
    for _, messages in read_general(data):
        yield from (message["content"] for message in messages)
