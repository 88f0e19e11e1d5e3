"""Supervised fine-tuning as in EmPO: LoRA, whole dialogues, loss only on assistant turns.

For such a loss, TRL needs `{% generation %}` marks in the template. It knows marked versions of
common templates, but none of Zephyr's, EmPO's base. So the spans are found in the rendered text:
what an assistant's turn adds after its opening tag.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat_template import template_of
from empo_demo.errors import DataError
from empo_demo.training.corpus import empathetic_file, file_hash, read_conversations
from empo_demo.training.recipe import (
    Job,
    as_the_adapter,
    in_batches,
    load_adapted,
    new_adapter,
    sample,
    tokenizer_of,
)
from empo_demo.training.system_turn import drawn, read_hints, with_system
from empo_demo.training.train import Rows, begin, kept_rows, prepared, train, write_card
from empo_demo.training.watch import watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run(job: Job, data: Path) -> None:
    """Train an SFT adapter on EmpatheticDialogues' training split into `job.out`.

    It goes on from `job.adapter`, or begins on the base.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    job = as_the_adapter(job)
    source = empathetic_file(data, "train")
    begin(job, method="sft", data=file_hash(source))
    tokenizer = tokenizer_of(job)
    rows = kept_rows(job, "train", lambda: _rows(job, tokenizer, data))
    trainer = SFTTrainer(
        model=load_adapted(job),
        args=SFTConfig(packing=False, **job.in_order()),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=None if job.adapter else new_adapter(job),
    )
    trainer.add_callback(watch(job.out))
    metrics = train(prepared(trainer), job)
    hints = f", the SEM's hint for {job.hints_share:.0%} of them" if job.hints_share else ""
    write_card(
        job,
        title="SFT adapter",
        method="sft",
        data=source,
        metrics=metrics,
        text=f"Supervised fine-tuning on whole dialogues{hints}, loss on listener turns only.",
    )


def _rows(job: Job, tokenizer: PreTrainedTokenizerBase, data: Path) -> Rows:
    """The examples in the order of training: token ids and labels."""
    dialogues = [
        c.turns[: c.target + 1] for c in read_conversations(data, "train") if c.target is not None
    ]
    chosen = sample(dialogues, job)
    made = [
        row_of(tokenizer, turns, start, job.length) for turns, start in _with_system(chosen, job)
    ]
    rows = [row for row in made if any(label != -100 for label in row["labels"])]
    if not rows:
        raise DataError(
            f"{data}: no reply begins within {job.length:,} tokens; give a higher --length."
        )
    lengths = [len(row["input_ids"]) for row in rows]
    wanted = job.wanted(len(dialogues))
    return [rows[i] for i in in_batches(lengths, job.per_step, wanted=wanted, seed=job.seed)]


def _with_system(
    dialogues: Sequence[Sequence[Message]], job: Job
) -> list[tuple[list[Message], int]]:
    """Each dialogue with its system turn, and the first turn whose reply is learnt.

    A hint is about one moment, so a dialogue with a hint ends at a reply drawn among the
    listener's, and only that one is learnt.
    """
    rng = random.Random(f"hinted turns {job.seed}")
    hinted: dict[int, int] = {}
    for i, wanted in enumerate(drawn(len(dialogues), job.hints_share, job.seed)):
        if wanted:
            replies = [k for k, turn in enumerate(dialogues[i]) if turn["role"] == "assistant"]
            hinted[i] = rng.choice(replies)
    hints = dict(
        zip(hinted, read_hints([dialogues[i][:k] for i, k in hinted.items()]), strict=True)
    )
    examples = []
    for i, turns in enumerate(dialogues):
        hint = hints.get(i, "")
        end = hinted[i] if hint else len(turns) - 1
        made = with_system(turns[: end + 1], job.system_prompt, hint)
        examples.append((made, len(made) - 1 if hint else 0))
    return examples


def row_of(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], start: int, length: int
) -> dict[str, list[int]]:
    """Token ids, at most `length`, and labels: the ids of what is learnt, elsewhere -100.

    Learnt are the assistant's tokens from turn `start` on.
    """
    ids, theirs = assistant_tokens(tokenizer, turns, start)
    labels = [token if own else -100 for token, own in zip(ids, theirs, strict=True)]
    return {"input_ids": ids[:length], "labels": labels[:length]}


def assistant_tokens(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], start: int = 0
) -> tuple[list[int], list[bool]]:
    """Token ids of the whole dialogue, and which of them are assistant turns with their end tag.

    Turns before `start` do not count. Raises `DataError` if the template does not append turn by
    turn.
    """
    template = template_of(tokenizer)
    safe = [{**m, "content": template.safe(tokenizer, m["content"])} for m in messages]
    whole = _render(tokenizer, safe)
    spans = []
    for i, message in enumerate(safe):
        if message["role"] != "assistant" or i < start:
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
