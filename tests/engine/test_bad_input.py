"""What a model or a device can do wrong is one sentence; the next round is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Failed, Request
from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.engine.weights.model_weights import weights_of
from empo_demo.errors import InvalidInput
from tests.bench.company import texts

SAD = ({"role": "user", "content": "I failed my driving test again."},)
GREEDY = Decoding(0, 1, 1.0, 16)
PAIR = [Request("a", "base", SAD, GREEDY), Request("b", "aligned", SAD, GREEDY)]


@contextmanager
def spoiled(engine: LocalEngine, spoil: Any, at: int = 3) -> Iterator[None]:
    """The `at`-th forward pass goes through `spoil`."""
    passes = engine.batch_of("base").forward
    forward, calls = passes._forward, []

    def wrong(*args: Any) -> Any:
        calls.append(1)
        return spoil(forward(*args)) if len(calls) == at else forward(*args)

    passes._forward = wrong  # type: ignore[method-assign]
    try:
        yield
    finally:
        del passes._forward


def test_logits_that_are_no_numbers_end_their_side_only(exact_engine: LocalEngine) -> None:
    expected = texts(exact_engine.stream(PAIR))

    def spoil(logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[1] = float("nan")  # rows are sorted by adapter: the second is the aligned one
        return logits

    for at in (1, 4):
        with spoiled(exact_engine, spoil, at):
            events = list(exact_engine.stream(PAIR))
        (failed,) = [event for event in events if isinstance(event, Failed)]
        assert failed.side == "b" and "NaN" in failed.error and "try another" in failed.error
        assert texts(events) == {"a": expected["a"]}
    assert texts(exact_engine.stream(PAIR)) == expected


def test_numbers_lost_inside_the_cache_do_not_reach_the_next_round(
    exact_engine: LocalEngine,
) -> None:
    expected = texts(exact_engine.stream(PAIR))
    batch = exact_engine.batch_of("base")

    def spoil(logits: torch.Tensor) -> torch.Tensor:
        for part in batch.forward.cache._parts():
            part[1] = float("nan")
        return torch.full_like(logits, float("nan"))

    with spoiled(exact_engine, spoil):
        assert not texts(exact_engine.stream(PAIR))
    assert texts(exact_engine.stream(PAIR)) == expected


@pytest.mark.parametrize("at", [1, 3])
def test_a_gpu_that_is_taken_away_is_said_and_the_next_round_is_right(
    exact_engine: LocalEngine, at: int
) -> None:
    expected = texts(exact_engine.stream(PAIR))

    def gone(_logits: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: unspecified launch failure")

    with spoiled(exact_engine, gone, at):
        events = list(exact_engine.stream(PAIR))
    failed = [event for event in events if isinstance(event, Failed)]
    assert {event.side for event in failed} == {"a", "b"}
    assert all("GPU" in e.error and "restarted" in e.error for e in failed)
    assert texts(exact_engine.stream(PAIR)) == expected


def test_prompts_that_cannot_be_read_do_not_end_the_rounds_that_run(
    exact_engine: LocalEngine,
) -> None:
    expected = texts(exact_engine.stream(PAIR))
    running = exact_engine.stream(PAIR)
    seen = [next(running)]

    def full(_logits: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with spoiled(exact_engine, full, at=1):
        joined = exact_engine.stream([Request("c", "aligned", SAD, GREEDY)])
        failed = next(joined)
    assert isinstance(failed, Failed) and "memory is full" in failed.error
    assert texts([*seen, *running]) == expected


def test_a_reply_longer_than_the_context_is_refused_with_the_numbers(
    exact_engine: LocalEngine,
) -> None:
    long = Decoding(0, 1, 1.0, 300)
    with pytest.raises(InvalidInput, match="context of base has 256 tokens, so it may be at most"):
        exact_engine.stream([Request("a", "base", SAD, long)])


def test_a_message_over_the_context_is_refused_with_the_numbers(
    exact_engine: LocalEngine,
) -> None:
    """A guided side's prompt is the longer one: neither side answers half of what was said."""
    words = "a very long story " * 15
    long = ({"role": "user", "content": words},)
    guided = ({"role": "system", "content": "The user feels ashamed. " * 4}, *long)
    batch = exact_engine.batch_of("base")
    sizes = [len(batch.prepare(Request("a", "base", m, GREEDY)).prompt) for m in (long, guided)]
    assert sizes[0] <= 240 < sizes[1]
    events = list(
        exact_engine.stream(
            [
                Request("a", "base", long, GREEDY, round="long"),
                Request("b", "aligned", guided, GREEDY, round="long"),
                Request("c", "base", SAD, GREEDY, round="short"),
            ]
        )
    )
    failed = {event.side: event.error for event in events if isinstance(event, Failed)}
    assert set(failed) == {"a", "b"} and failed["a"] == failed["b"]
    assert f"{sizes[1]} tokens, and it can read 240 beside a reply of 16" in failed["a"]
    assert set(texts(events)) == {"c"}


def test_two_copies_with_two_tokenizers_answer_each_in_its_own(
    exact_engine: LocalEngine, tiny_folder: Path
) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(str(tiny_folder))
    tokenizer.add_tokens(["driving", "puppy", "father"])
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()
    torch.manual_seed(1)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    other = weights_of(model, tokenizer, {"other": None}, None)
    both = LocalEngine([exact_engine.model_of("base"), other], {})
    pair = [Request("a", "base", SAD, GREEDY), Request("b", "other", SAD, GREEDY)]
    rows = [both.batch_of(one.contender).prepare(one) for one in pair]
    assert rows[0].prompt != rows[1].prompt
    together = texts(both.stream(pair))
    alone = {one.side: texts(both.stream([one]))[one.side] for one in pair}
    assert together == alone and together["a"] == texts(exact_engine.stream(pair[:1]))["a"]


def test_a_full_main_memory_is_called_that_too() -> None:
    """PyTorch raises a plain RuntimeError where the processor's memory is full."""
    from empo_demo.engine.lockstep.local import _sentence

    full = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to")
    assert "memory is full" in _sentence(full)
    assert "memory is full" not in _sentence(RuntimeError("CUDA error: device-side assert"))
