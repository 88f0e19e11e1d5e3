"""What requests share is read once, and the likelihoods are the harness's own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from empo_demo.settings import ASSETS

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install -e .[train]")

from lm_eval.models.huggingface import HFLM

from empo_demo.evaluation.shared_prefix import (
    FAMILY,
    WORTH,
    Context,
    SharedPrefixLM,
    contexts,
    families,
)

LONGEST = 256


@pytest.fixture(scope="module")
def model() -> Any:
    """A Llama of two layers with large random weights, so that its likelihoods differ much."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LONGEST,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / "tiny" / "base")


def requests(draw: random.Random) -> list[Any]:
    """Families with long and short beginnings, lone texts, single tokens, and one too long."""

    def tokens(n: int) -> list[int]:
        return [draw.randrange(5, 300) for _ in range(n)]

    trunks = [tokens(60), tokens(40), tokens(8), []]
    texts = [trunk + tokens(draw.randrange(1, 20)) for trunk in trunks for _ in range(FAMILY + 1)]
    texts += [tokens(1), tokens(LONGEST + 20)]
    asked = [
        (("text", f"ending {place}"), text, tokens(draw.choice((1, 1, 2, 7))))
        for place, text in enumerate(texts)
        for _ in range(3)
    ]
    draw.shuffle(asked)
    return asked


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_the_likelihoods_are_those_of_the_harness(model: Any, tokenizer: Any, batch: int) -> None:
    asked = requests(random.Random(1))
    own = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=LONGEST)
    ours = SharedPrefixLM(
        pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=LONGEST
    )
    expected = own._loglikelihood_tokens(asked, disable_tqdm=True)
    found = ours._loglikelihood_tokens(asked)
    assert len({round(value, 2) for value, _ in expected}) > len(asked) / 2
    for (want, greedy), (got, ours_greedy) in zip(expected, found, strict=True):
        assert got == pytest.approx(want, abs=1e-3)
        assert greedy == ours_greedy


def test_fewer_tokens_are_read(model: Any, tokenizer: Any) -> None:
    """Twenty texts with one long beginning and four endings each."""
    beginning = [7] * 100
    asked = [
        (None, [*beginning, 20 + text, 30], [ending, 9])
        for text in range(20)
        for ending in range(40, 44)
    ]
    read: list[int] = []

    def count(_module: Any, args: Any, kwargs: Any) -> None:
        read.append((kwargs["input_ids"] if "input_ids" in kwargs else args[0]).numel())

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        ours = SharedPrefixLM(
            pretrained=model, tokenizer=tokenizer, batch_size=20, max_length=LONGEST
        )
        ours._loglikelihood_tokens(asked)
    finally:
        hook.remove()
    assert sum(read) == 100 + 20 + 80 * 2
    assert sum(len(text) + 1 for _, text, _ in asked) > 25 * sum(read)


def test_texts_with_little_in_common_fill_batches_together() -> None:
    texts = [Context([1] * (WORTH - 1) + [number], {}) for number in range(10)]
    (alone,) = families(texts)
    assert alone.trunk == [] and len(alone.contexts) == 10


def test_a_family_keeps_its_long_beginning_when_another_subject_follows() -> None:
    one = [Context([1] * 40 + [2] * 200 + [number], {}) for number in range(5)]
    other = [Context([1] * 40 + [3] * 200 + [number], {}) for number in range(5)]
    assert [len(family.trunk) for family in families(one + other)] == [240, 240]


def test_endings_of_one_text_are_asked_together() -> None:
    asked = [(None, [1, 2, 3], [4]), (None, [1, 2, 3], [5]), (None, [1, 2, 3], [6, 7])]
    (one,) = contexts(asked, 100)
    assert one.tokens == [1, 2, 3]
    assert one.endings == {(): [0, 1], (6,): [2]}


def test_a_killed_run_goes_on_from_what_is_kept(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    asked = requests(random.Random(2))
    ours = SharedPrefixLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=LONGEST)
    expected = ours._loglikelihood_tokens(asked)
    ours.kept = tmp_path / "kept.jsonl"
    ours._loglikelihood_tokens(asked[:20])
    torn = ours.kept.read_text(encoding="utf8").removesuffix("\n")[:-9]
    ours.kept.write_text(torn, encoding="utf8")
    assert len(ours._known()) in (18, 19)
    again = ours._loglikelihood_tokens(asked)
    for one, other in zip(again, expected, strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-4) and one[1] == other[1]
    assert len(ours._known()) == len(asked)


@pytest.mark.slow
def test_what_was_answered_is_not_asked_again(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from empo_demo.evaluation.retention import ContenderModel, Harness

    task = str(ASSETS / "retention" / "everyday.yaml")

    def harness() -> Harness:
        return Harness([task], limit=5, shots=None, batch=4, work=tmp_path)

    from transformers import AutoModelForCausalLM

    served = AutoModelForCausalLM.from_pretrained(ASSETS / "tiny" / "base")
    first, _ = harness().evaluate(ContenderModel(served, tokenizer), "base-1")

    def refuse(*_: Any) -> None:
        raise AssertionError("this was answered already")

    hook = served.register_forward_pre_hook(refuse)
    try:
        again, _ = harness().evaluate(ContenderModel(served, tokenizer), "base-1")
        assert again == first
        with pytest.raises(Exception, match="answered already"):
            harness().evaluate(ContenderModel(served, tokenizer), "another-2")
    finally:
        hook.remove()
