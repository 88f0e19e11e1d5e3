"""Supervised fine-tuning as EmPO does it: LoRA, whole dialogues, loss on assistant turns only."""

from __future__ import annotations

from pathlib import Path

from empo_demo.errors import DataError
from empo_demo.training.adapters import TARGETS, Job, load_base, train, write_card
from empo_demo.training.corpus import empathetic_file, read_conversations


def run(job: Job, data: Path) -> None:
    """Train an SFT adapter on EmpatheticDialogues' training split into `job.out`."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from empo_demo.engine.loading import load_tokenizer

    rows = [
        {"messages": list(c.turns[: (c.target or 0) + 1])}
        for c in read_conversations(data, "train")
        if c.target is not None
    ]
    tokenizer = load_tokenizer(job.base)
    if "{% generation %}" not in str(tokenizer.chat_template):
        raise DataError(
            f"The chat template of {job.base} marks no assistant turns ({{% generation %}}); "
            "add the marks, so that the loss can be taken on them alone."
        )
    trainer = SFTTrainer(
        model=load_base(job),
        args=SFTConfig(
            assistant_only_loss=True,
            packing=False,
            train_sampling_strategy="group_by_length",
            **job.arguments(),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=job.rank,
            lora_alpha=job.alpha,
            lora_dropout=job.dropout,
            target_modules=TARGETS,
            task_type="CAUSAL_LM",
        ),
    )
    metrics = train(trainer, job)
    write_card(
        job,
        title="SFT adapter",
        method="sft",
        data=empathetic_file(data, "train"),
        metrics=metrics,
        text="Supervised fine-tuning on whole dialogues, loss on listener turns only.",
    )
