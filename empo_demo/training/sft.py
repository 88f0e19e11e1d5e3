"""Supervised fine-tuning as in EmPO: LoRA, whole dialogues, loss only on assistant turns.

For such a loss, TRL needs `{% generation %}` marks in the template. It knows marked versions of
common templates, but none of Zephyr's, EmPO's base. So the spans are found in the rendered text:
what an assistant's turn adds after its opening tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat_template import load_tokenizer, template_of
from empo_demo.errors import DataError
from empo_demo.training.corpus import empathetic_file, file_hash, read_conversations
from empo_demo.training.recipe import Job, load_base, new_adapter, sample
from empo_demo.training.train import train, write_card

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run(job: Job, data: Path) -> None:
    """Train an SFT adapter on EmpatheticDialogues' training split into `job.out`."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    tokenizer = load_tokenizer(job.base)
    dialogues = [
        c.turns[: c.target + 1] for c in read_conversations(data, "train") if c.target is not None
    ]
    rows = [_row(tokenizer, turns) for turns in sample(dialogues, job)]
    trainer = SFTTrainer(
        model=load_base(job),
        args=SFTConfig(
            packing=False,
            train_sampling_strategy="group_by_length",
            **job.arguments(),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=new_adapter(job),
    )
    facts = {"method": "sft", "data": file_hash(empathetic_file(data, "train"))}
    metrics = train(trainer, job, facts)
    write_card(
        job,
        title="SFT adapter",
        method="sft",
        data=empathetic_file(data, "train"),
        metrics=metrics,
        text="Supervised fine-tuning on whole dialogues, loss on listener turns only.",
    )


def _row(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message]) -> dict[str, list[int]]:
    """Token ids, and labels: the ids of the assistant's tokens, elsewhere -100."""
    ids, theirs = assistant_tokens(tokenizer, turns)
    labels = [token if own else -100 for token, own in zip(ids, theirs, strict=True)]
    return {"input_ids": ids, "labels": labels}


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
