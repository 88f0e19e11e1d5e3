"""Supervised fine-tuning as in EmPO: LoRA, whole dialogues, loss only on assistant turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from empo_demo.dialogue import Message
from empo_demo.engine.text.chat_template import load_tokenizer
from empo_demo.training.corpus import empathetic_file, file_hash, read_conversations
from empo_demo.training.masks import assistant_tokens
from empo_demo.training.model_card import write_card
from empo_demo.training.recipe import Job, load_base, new_adapter, sample
from empo_demo.training.train import train

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
