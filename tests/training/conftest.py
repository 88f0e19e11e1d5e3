"""Twenty dialogues of our own sentences, a model of a few thousand weights, and what it learns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from empo_demo.training import preferences
from empo_demo.training.recipe import Job

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


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of the adapter in `folder`, by name."""
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    """Whether two adapters are equal to the bit."""
    import torch

    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def job(data: Path, out: Path, **changes: Any) -> Job:
    """Four steps on the model of `data`."""
    knobs = {"batch": 4, "micro": 2, "learning_rate": 1e-2, "steps": 4, **changes}
    return Job(str(data / "init"), out, **knobs)


@pytest.fixture(scope="session")
def sft(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from empo_demo.training import sft as training

    out = tmp_path_factory.mktemp("sft") / "adapter"
    training.run(job(data, out), data)
    return out


@pytest.fixture(scope="session")
def pairs(data: Path) -> Path:
    out = data / "pairs.jsonl"
    preferences.from_dialogues(data, out, split="train", draws=1, seed=0, control="none")
    return out
