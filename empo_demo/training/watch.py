"""Watches a training: each figure that the trainer logs, and the replies that the model writes.

A falling loss does not show that a model has begun to repeat itself, or to say the same to
everybody. So at each evaluation the model answers some prompts of the validation pairs as it is
served; their length, distinct words and repetition stand in `log.jsonl` beside the likelihoods.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat_template import encode_chat
from empo_demo.errors import DataError
from empo_demo.metrics.lexical import distinct, distinct_per_response, mean_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback

LOG = "log.jsonl"
SERVED: dict[str, Any] = {
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 0,
    "repetition_penalty": 1.1,
    "max_new_tokens": 60,
}
"""The decoding of the embedded pairs."""
AT_ONCE = 16


def watch(
    folder: Path, prompts: Sequence[Sequence[Message]] = (), seed: int = 0
) -> TrainerCallback:
    """A callback that writes `folder`/log.jsonl; at evaluations the model answers `prompts`."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                _forget_after(folder / LOG, state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if state.is_world_process_zero:
                _write(folder / LOG, {"step": state.global_step, **(logs or {})})

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= state.max_steps and str(args.eval_strategy.value) != "no":
                control.should_evaluate = True

        def on_evaluate(
            self, args: Any, state: Any, control: Any, model: Any = None, **more: Any
        ) -> None:
            if prompts and state.is_world_process_zero:
                texts = replies(model, more["processing_class"], prompts, seed)
                figures = {"step": state.global_step, **described(texts)}
                _write(folder / LOG, figures)

    return Watch()


def described(texts: Sequence[str]) -> dict[str, float]:
    """Words per reply, distinct-1 and -2 of all, repeated three-word runs, replies that ask."""
    each = distinct_per_response(texts, 3)
    return {
        "replies/words": mean_words(texts) or 0.0,
        "replies/distinct_1": distinct(texts, 1) or 0.0,
        "replies/distinct_2": distinct(texts, 2) or 0.0,
        "replies/repetition": 0.0 if each is None else 1 - each,
        "replies/questions": sum("?" in text for text in texts) / max(1, len(texts)),
        "replies/openings": len({tuple(text.split()[:2]) for text in texts}) / max(1, len(texts)),
    }


def replies(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    seed: int,
) -> list[str]:
    """What the model answers, seeded. The random state of the training stays as it was."""
    import torch

    texts: list[str] = []
    training, end = model.training, tokenizer.eos_token_id
    model.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), AT_ONCE):
            rows = [
                encode_chat(tokenizer, list(prompt)) for prompt in prompts[start : start + AT_ONCE]
            ]
            width = max(map(len, rows))
            pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            with torch.autocast(model.device.type, torch.bfloat16, enabled=_in_bfloat16(model)):
                made = model.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=mask.to(model.device),
                    pad_token_id=pad,
                    eos_token_id=end,
                    **SERVED,
                )
            texts += tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
    model.train(training)
    return [text.strip() for text in texts]


def _in_bfloat16(model: Any) -> bool:
    import torch

    return any(weight.dtype == torch.bfloat16 for weight in model.parameters())


def _forget_after(file: Path, step: int) -> None:
    """Remove what a killed training logged after the checkpoint from which it goes on."""
    if not file.is_file():
        return
    lines = [line for line in file.read_text(encoding="utf8").splitlines() if _step(line) <= step]
    file.write_text("".join(f"{line}\n" for line in lines if step), encoding="utf8")


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # it was cut off when the process died


def _write(file: Path, figures: Mapping[str, Any]) -> None:
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf8") as out:
            out.write(json.dumps(numbers) + "\n")
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}.") from None
