"""What `train tiny-check` says of a base: perplexity by its definition, and faults of replies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from empo_demo.errors import DataError
from empo_demo.settings import ASSETS
from empo_demo.training.corpus import Conversation
from recipes.tiny.check_base import _judge, perplexity, run, sampled


@pytest.fixture(scope="module")
def base() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = ASSETS / "tiny" / "base"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def conversation(*texts: str) -> Conversation:
    roles = ("user", "assistant")
    turns = tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts))
    return Conversation("c", "sad", "", turns)


def test_perplexity_is_of_the_listeners_tokens_given_all_before(base: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = base
    said = ("My dog died today.", "Oh no. What was his name?", "Bruno.", "I am so sorry.")
    total, count = 0.0, 0
    for end in (1, 3):
        before = "".join(
            f"<|{('user', 'assistant')[i % 2]}|>{text}</s>" for i, text in enumerate(said[:end])
        )
        given = tokenizer(before + "<|assistant|>", add_special_tokens=False)["input_ids"]
        answer = tokenizer(said[end] + "</s>", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            log_p = model(input_ids=torch.tensor([given + answer])).logits[0].log_softmax(-1)
        total -= sum(float(log_p[len(given) - 1 + i, token]) for i, token in enumerate(answer))
        count += len(answer)

    # A longer dialogue in the same batch: padding must not count.
    found = perplexity(model, tokenizer, [conversation(*said)])
    padded = perplexity(model, tokenizer, [conversation(*said), conversation(*said * 3)])

    assert found.tokens == count
    assert found.value == pytest.approx(math.exp(total / count), rel=1e-4)
    assert padded.tokens > 3 * count
    assert padded.interval[0] <= padded.value <= padded.interval[1]


def test_each_fault_of_a_reply_is_counted(base: tuple[Any, Any]) -> None:
    tokenizer = base[1]
    texts = ("I am sorry.</s>", "</s>", "it goes on", "so it goes on so it goes on</s>")
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]

    found = _judge(tokenizer, ids)

    assert (found.n, found.empty, found.unended, found.repeating) == (4, 0.25, 0.25, 0.25)
    assert found.sound == 0.25


def test_sampled_replies_are_the_same_for_the_same_seed(base: tuple[Any, Any]) -> None:
    contexts = [conversation(f"I lost my {thing} today.").turns for thing in ("keys", "job", "way")]
    first, again = (sampled(*base, contexts, 3, seed=1) for _ in range(2))
    assert first == again
    assert first.n == 3


def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no model; give a folder"):
        run(tmp_path, tmp_path, dialogues=1, replies=1, seed=0)
