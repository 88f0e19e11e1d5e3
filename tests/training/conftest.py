"""Twenty dialogues of our own sentences, and a model of a few thousand weights to train on them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

SENTENCES = ("My old dog died today", "Oh no what was his name", "We called him Bruno", "I see")


def write_data(folder: Path) -> Path:
    roles = ("user", "assistant")
    rows = [
        {
            "conv_id": f"c{i}",
            "emotion": ("sad", "joyful")[i % 2],
            "situation": "s",
            "utterances": [
                {"role": roles[j % 2], "content": f"{text} {i}"} for j, text in enumerate(SENTENCES)
            ],
        }
        for i in range(20)
    ]
    general = [{"source": "own", "utterances": ["Hello there", "Hello to you"]}] * 4
    for name, lines in (("empathetic_dialogues.train", rows), ("general_dialogues", general)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder, with a very small model in `init`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from recipes.tiny.start_model import start_tokenizer

    folder = write_data(tmp_path_factory.mktemp("data"))
    tokenizer = start_tokenizer(folder, None)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(shape).save_pretrained(folder / "init")
    tokenizer.save_pretrained(folder / "init")
    return folder
