"""`train …` and `preferences …`: parse, call, nothing else. TRL is imported by what runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from empo_demo.terminal import AsJson, Command, OutputFile, OutputFolder, Seed, group

train_app = group()
preferences_app = group()

Data = Annotated[Path, typer.Option(help="Folder of the dialogue files.")]
Base = Annotated[str, typer.Option(help="Base model: a folder or a Hub id.")]
Adapter = Annotated[
    Path | None,
    typer.Option(help="SFT adapter to go on from; without it a new one begins on the base."),
]
Rank = Annotated[int, typer.Option(min=1, help="Rank of the LoRA adapter; alpha is twice that.")]
NewRank = Annotated[
    int | None, typer.Option("--rank", min=1, help="Rank of a new LoRA adapter; default: 16.")
]
Pairs = Annotated[
    Path, typer.Option(help="JSONL of `preferences build`, or of `votes export --format trl`.")
]
Rated = Annotated[
    Path,
    typer.Option(help="JSONL of `votes export --format kto`, or pairs, which are taken apart."),
]
Quantise = Annotated[str, typer.Option(help="none, or nf4 for QLoRA on a GPU.")]
Epochs = Annotated[float, typer.Option(help="Passes over the data.")]
Rate = Annotated[float, typer.Option("--learning-rate", help="Peak learning rate.")]
Batch = Annotated[int, typer.Option(help="Examples per optimizer step.")]
Steps = Annotated[
    int, typer.Option(min=0, help="Optimizer steps, on as many examples; 0 for whole epochs.")
]
Warmup = Annotated[float, typer.Option(min=0, help="Warm-up: steps, or a share below 1.")]
SaveSteps = Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")]
Length = Annotated[
    int, typer.Option(min=16, help="Most tokens of a prompt with its reply; the rest is cut off.")
]
Micro = Annotated[int, typer.Option(help="Examples per forward pass.")]


@preferences_app.callback()
def preferences() -> None:
    """Build EmPO preference pairs."""


@preferences_app.command("build", cls=Command)
def build_preferences(
    output: OutputFile,
    data: Annotated[Path | None, typer.Option(help="Folder of the dialogue files.")] = None,
    opposites: Annotated[str, typer.Option(help="Table of opposites: plutchik.")] = "plutchik",
    draws: Annotated[int, typer.Option(help="Rejected texts per dialogue.")] = 3,
    seed: Seed = 0,
    control: Annotated[str, typer.Option(help="none, same-emotion or random.")] = "none",
    split: Annotated[str, typer.Option(help="train or valid.")] = "train",
    source: Annotated[str, typer.Option(help="dialogues, or votes.")] = "dialogues",
    database: Annotated[str | None, typer.Option(help="For votes: a SQLAlchemy URL.")] = None,
) -> None:
    """Pairs from EmpatheticDialogues, or from the arena's votes, with a data card beside them."""
    from empo_demo.errors import InvalidInput
    from empo_demo.training import build

    if source == "votes":
        typer.echo(build.from_votes(output, database), err=True)
        return
    for name, value, known in (
        ("source", source, ("dialogues", "votes")),
        ("opposites", opposites, ("plutchik",)),
        ("split", split, ("train", "valid")),
    ):
        if value not in known:
            raise InvalidInput(f"--{name} is {value!r}; it may be {' or '.join(known)}.")
    if data is None:
        raise InvalidInput("Give the folder of the dialogue files with --data.")
    said = build.from_dialogues(
        data, output, split=split, draws=draws, seed=seed, control=control
    )  # fmt: skip
    typer.echo(said, err=True)


@train_app.command("tiny-base", cls=Command)
def tiny_base(
    data: Data,
    output: OutputFolder,
    init: Annotated[Path | None, typer.Option(help="A model to go on from.")] = None,
    passes: Annotated[float, typer.Option(help="Passes over all dialogues.")] = 2.0,
    learning_rate: Rate = 2e-3,
    seed: Seed = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all.")] = 0,
) -> None:
    """The tiny dialogue model, from scratch or from a head start. Resumes after a kill."""
    from empo_demo.training.tiny import fit_base

    config = fit_base.TinyConfig(passes=passes, learning_rate=learning_rate, seed=seed)
    fit_base.run(data, output, init, config, threads=threads)
    typer.echo(f"The model is in {output}; `train tiny-check` measures it.", err=True)


@train_app.command("tiny-check")
def tiny_check(
    model: Annotated[Path, typer.Option(help="Folder of a model that tiny-base trained.")],
    data: Data,
    dialogues: Annotated[int, typer.Option(help="Validation dialogues for perplexity.")] = 1000,
    replies: Annotated[int, typer.Option(help="Replies to sample.")] = 500,
    seed: Seed = 0,
) -> None:
    """Perplexity on human listener turns, and how soundly sampled replies end. Prints JSON."""
    import json

    from empo_demo.training.tiny.check_base import run

    found = run(model, data, dialogues=dialogues, replies=replies, seed=seed)
    typer.echo(json.dumps(found))


@train_app.command("sft", cls=Command)
def sft(
    data: Data,
    output: OutputFolder,
    base: Base,
    epochs: Epochs = 1.0,
    learning_rate: Rate = 2e-4,
    batch: Batch = 64,
    micro: Micro = 16,
    rank: Rank = 16,
    steps: Steps = 0,
    warmup: Warmup = 0.1,
    save_steps: SaveSteps = 50,
    length: Length = 256,
    seed: Seed = 0,
    quantization: Quantise = "none",
) -> None:
    """LoRA on whole dialogues, loss on assistant turns only."""
    from empo_demo.training import sft as training
    from empo_demo.training.recipe import Job

    job = Job(
        base, output, epochs=epochs, learning_rate=learning_rate, batch=batch, micro=micro,
        rank=rank, alpha=2 * rank, seed=seed, quantization=_quantization(quantization), steps=steps,
        warmup=warmup, save_steps=save_steps, length=length,
    )  # fmt: skip
    training.run(job, data)
    _say_where(output)


@train_app.command("dpo", cls=Command)
def dpo(
    pairs: Pairs,
    output: OutputFolder,
    base: Base,
    adapter: Adapter = None,
    rank: NewRank = None,
    loss: Annotated[
        str, typer.Option(help="TRL loss types, as sigmoid or sigmoid:1,sft:0.5.")
    ] = "sigmoid",
    beta: Annotated[float, typer.Option(help="Strength of the tie to the reference.")] = 0.05,
    epochs: Epochs = 1.0,
    learning_rate: Rate = 1e-4,
    batch: Batch = 64,
    micro: Micro = 16,
    steps: Steps = 0,
    warmup: Warmup = 0.1,
    save_steps: SaveSteps = 50,
    length: Length = 256,
    seed: Seed = 0,
    quantization: Quantise = "none",
) -> None:
    """DPO on preference pairs, from the SFT adapter or from the base."""
    from empo_demo.training import dpo as training
    from empo_demo.training.recipe import Job

    job = Job(
        base, output, adapter=adapter, epochs=epochs, learning_rate=learning_rate, batch=batch,
        micro=micro, seed=seed, quantization=_quantization(quantization), steps=steps,
        warmup=warmup, save_steps=save_steps, length=length, **_shape(rank, adapter),
    )  # fmt: skip
    training.run_dpo(job, pairs, loss=loss, beta=beta)
    _say_where(output)


@train_app.command("kto", cls=Command)
def kto(
    pairs: Rated,
    output: OutputFolder,
    base: Base,
    adapter: Adapter = None,
    rank: NewRank = None,
    beta: Annotated[float, typer.Option(help="Strength of the tie to the reference.")] = 0.1,
    epochs: Epochs = 1.0,
    learning_rate: Rate = 1e-4,
    batch: Batch = 64,
    micro: Micro = 16,
    steps: Steps = 0,
    warmup: Warmup = 0.1,
    save_steps: SaveSteps = 50,
    length: Length = 256,
    seed: Seed = 0,
    quantization: Quantise = "none",
) -> None:
    """KTO on unpaired votes (`votes export --format kto`), from the SFT adapter or the base."""
    from empo_demo.training import dpo as training
    from empo_demo.training.recipe import Job

    job = Job(
        base, output, adapter=adapter, epochs=epochs, learning_rate=learning_rate, batch=batch,
        micro=micro, seed=seed, quantization=_quantization(quantization), steps=steps,
        warmup=warmup, save_steps=save_steps, length=length, **_shape(rank, adapter),
    )  # fmt: skip
    training.run_kto(job, pairs, beta=beta)
    _say_where(output)


@train_app.command("grid")
def grid(
    base: Base,
    reference: Annotated[Path, typer.Option(help="The SFT adapter that all started from.")],
    adapter: Annotated[list[str], typer.Option(help="NAME=DIR of an aligned adapter; repeat.")],
    pairs: Annotated[list[str], typer.Option(help="NAME=FILE of held-out pairs; repeat.")],
    limit: Annotated[int, typer.Option(min=2, help="Dialogues, drawn by the seed.")] = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Reward accuracy on held-out pairs: each adapter on each kind of rejected text."""
    from empo_demo.training import grid as measured

    cells = measured.run(
        base, reference, measured.named_paths(adapter, "--adapter"),
        measured.named_paths(pairs, "--pairs"), limit=limit, seed=seed,
    )  # fmt: skip
    typer.echo(measured.as_json(cells) if as_json else measured.as_table(cells))


@train_app.command("side-by-side")
def side_by_side(
    card: Annotated[Path, typer.Option(help="The model card (README.md) to end with them.")],
    contender: Annotated[list[str], typer.Option(help="Id of a contender; repeat.")],
) -> None:
    """Fresh replies to our own prompts, as they come, into a model card."""
    from empo_demo.training.side_by_side import write

    write(card, contender)


@train_app.command("sem", cls=Command)
def sem(
    data: Data,
    output: OutputFolder,
    epochs: Annotated[float, typer.Option(help="Passes of each emotion run.")] = 2.0,
    runs: Annotated[int, typer.Option(help="Emotion runs, whose weights are averaged.")] = 1,
    seed: Seed = 0,
    start: Annotated[Path | None, typer.Option(help="Pretrained encoder to start from.")] = None,
    teachers: Annotated[
        bool, typer.Option(help="Learn from two teachers: as long again, and reads better.")
    ] = False,
    folds: Annotated[
        bool, typer.Option(help="Cross-validate the emotions: three more encoders to train.")
    ] = True,
) -> None:
    """The small empathetic model: one encoder, seven heads. Resumes after a kill."""
    from empo_demo.training.sem import fit as training

    training.run(
        data, output, epochs=epochs, runs=runs, seed=seed, start=start, folds=folds,
        teachers=teachers,
    )  # fmt: skip
    _say_where(output)


def _say_where(output: Path) -> None:
    """Say once where the model and its card are, also if several processes trained it."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"The result is in {output}, its card in {output / 'README.md'}.", err=True)


def _shape(rank: int | None, adapter: Path | None) -> dict[str, Any]:
    """Rank and alpha of a new adapter. Raises `InvalidInput` if a given adapter has its own."""
    from empo_demo.errors import InvalidInput

    if rank is None:
        return {}
    if adapter is not None:
        raise InvalidInput(
            f"--rank cannot be chosen here: the adapter {adapter} has its rank already. Leave out "
            "--rank, or leave out --adapter to begin a new adapter on the base."
        )
    return {"rank": rank, "alpha": 2 * rank}


def _quantization(value: str) -> Literal["none", "nf4"]:
    from empo_demo.errors import InvalidInput

    if value not in ("none", "nf4"):
        raise InvalidInput(f"--quantization is {value!r}; it may be none or nf4.")
    return cast(Literal["none", "nf4"], value)
