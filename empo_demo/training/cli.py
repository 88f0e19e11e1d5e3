"""`train …` and `preferences …`: parse, call, nothing else. TRL is imported by what runs."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from empo_demo.errors import InvalidInput
from empo_demo.terminal import Command, OutputFile, OutputFolder, Seed, group
from empo_demo.training.recipe import Job, Quantization
from empo_demo.training.recipe import Schedule as Schedules

train_app = group()
preferences_app = group()

Data = Annotated[
    Path, typer.Option(help="Folder of the dialogues: ours, or EmpatheticDialogues' train.csv.")
]
Base = Annotated[str, typer.Option(help="Base model: a folder or a Hub id.")]
Adapter = Annotated[
    Path | None,
    typer.Option(
        "--init-adapter",
        "--adapter",
        help="Adapter to go on from; without it a new one begins on the base.",
    ),
]
NewRank = Annotated[
    int | None,
    typer.Option("--rank", min=1, help="Rank of a new LoRA adapter, alpha twice that; 16."),
]
Pairs = Annotated[
    Path,
    typer.Option(help="JSONL of `preferences build`, of `votes export --format trl`, or alike."),
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
Schedule = Annotated[
    str, typer.Option(help="How the rate falls: cosine, or linear (to a twentieth).")
]
Beta2 = Annotated[float, typer.Option(help="Adam's second beta.")]
NewDropout = Annotated[
    float | None, typer.Option("--dropout", help="Dropout of a new LoRA adapter; default: 0.05.")
]
SystemPrompt = Annotated[
    str, typer.Option(help="What the model reads first; the same as where it is served.")
]
HintsShare = Annotated[
    float, typer.Option(help="Share of the dialogues with the SEM's compact hint.")
]


@preferences_app.callback()
def preferences() -> None:
    """Build EmPO preference pairs."""


@preferences_app.command("build", cls=Command)
def build_preferences(
    output: OutputFile,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the dialogues: ours, or EmpatheticDialogues' train.csv."),
    ] = None,
    opposites: Annotated[str, typer.Option(help="Table of opposites: plutchik.")] = "plutchik",
    draws: Annotated[int, typer.Option(help="Rejected texts per dialogue.")] = 3,
    seed: Seed = 0,
    control: Annotated[str, typer.Option(help="none, same-emotion or random.")] = "none",
    same_emotion: Annotated[
        float, typer.Option(help="Share of rejected texts of the same emotion, not the opposite.")
    ] = 0.0,
    most: Annotated[int, typer.Option(min=0, help="A random draw of so many; 0: all.")] = 0,
    split: Annotated[str, typer.Option(help="train or valid.")] = "train",
    source: Annotated[str, typer.Option(help="dialogues, or votes.")] = "dialogues",
    database: Annotated[str | None, typer.Option(help="For votes: a SQLAlchemy URL.")] = None,
) -> None:
    """Pairs from EmpatheticDialogues, or from the arena's votes, with a data card beside them."""
    from empo_demo.training import preferences

    if source == "votes":
        typer.echo(preferences.from_votes(output, database), err=True)
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
    said = preferences.from_dialogues(
        data,
        output,
        split=split,
        draws=draws,
        seed=seed,
        control=control,
        same_emotion=same_emotion,
        most=most,
    )
    typer.echo(said, err=True)


def _job(
    output: OutputFolder,
    base: Base,
    adapter: Adapter = None,
    rank: NewRank = None,
    dropout: NewDropout = None,
    epochs: Epochs = 1.0,
    learning_rate: Rate = 1e-4,
    batch: Batch = 64,
    micro: Micro = 16,
    steps: Steps = 0,
    warmup: Warmup = 0.1,
    schedule: Schedule = "cosine",
    adam_beta2: Beta2 = 0.999,
    save_steps: SaveSteps = 50,
    length: Length = 256,
    system_prompt: SystemPrompt = "",
    hints_share: HintsShare = 0.0,
    seed: Seed = 0,
    quantization: Quantise = "none",
) -> Job:
    """The options that all trainings share, as a job."""
    return Job(
        _base(base),
        output,
        adapter=adapter,
        epochs=epochs,
        learning_rate=learning_rate,
        batch=batch,
        micro=micro,
        seed=seed,
        quantization=_quantization(quantization),
        steps=steps,
        warmup=warmup,
        schedule=_schedule(schedule),
        adam_beta2=adam_beta2,
        save_steps=save_steps,
        length=length,
        system_prompt=system_prompt,
        hints_share=hints_share,
        **_shape(rank, dropout, adapter),
    )


def _training(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command of `train` whose first parameter, a `Job`, is the options of `_job`.

    `defaults` replace those of `_job`. At the end the command says where the result is.
    """
    shared = inspect.signature(_job, eval_str=True).parameters
    options = [
        option.replace(default=defaults.get(name, option.default))
        for name, option in shared.items()
    ]

    def decorate(training: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(training, eval_str=True).parameters.values()
        parameters = sorted([*own, *options], key=lambda option: option.default is not option.empty)

        @train_app.command(training.__name__, cls=Command)
        @functools.wraps(training)
        def command(**given: Any) -> None:
            job = _job(**{name: given.pop(name) for name in shared})
            training(job, **given)
            _say_where(job.out)

        command.__annotations__ = {option.name: option.annotation for option in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


@_training(learning_rate=2e-4)
def sft(job: Job, data: Data) -> None:
    """LoRA on whole dialogues, loss on assistant turns only. Goes on after a kill."""
    from empo_demo.training import sft as training

    training.run(job, data)


@_training()
def dpo(
    job: Job,
    pairs: Pairs,
    loss: Annotated[
        str, typer.Option(help="TRL loss types, as sigmoid or sigmoid:1,sft:0.5.")
    ] = "sigmoid",
    sft_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the chosen reply's own loss, per token.")
    ] = 0.0,
    beta: Annotated[float, typer.Option(help="Strength of the tie to the reference.")] = 0.05,
    valid: Annotated[
        Path | None, typer.Option(help="Pairs on which the training is watched, into log.jsonl.")
    ] = None,
    valid_size: Annotated[int, typer.Option(min=1, help="How many of them, drawn.")] = 240,
    valid_steps: Annotated[int, typer.Option(min=1, help="Steps between two looks.")] = 40,
) -> None:
    """DPO on preference pairs, from the SFT adapter or from the base."""
    from empo_demo.training import dpo as training

    if sft_weight:
        loss = f"{loss},sft:{sft_weight:g}"
    watched = training.Watched(valid, valid_size, valid_steps) if valid else None
    training.run_dpo(job, pairs, loss=loss, beta=beta, watched=watched)


@_training()
def kto(
    job: Job,
    pairs: Rated,
    beta: Annotated[float, typer.Option(help="Strength of the tie to the reference.")] = 0.1,
) -> None:
    """KTO on unpaired votes (`votes export --format kto`), from the SFT adapter or the base."""
    from empo_demo.training import dpo as training

    training.run_kto(job, pairs, beta=beta)


def _say_where(output: Path) -> None:
    """Say once where the model and its card are, also if several processes trained it."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(f"The result is in {output}, its card in {output / 'README.md'}.", err=True)


def _base(base: str) -> str:
    """The folder of the default pair's base for its name; else `base` itself."""
    from empo_demo.smollm2.package import SMOLLM2, is_base

    return str(SMOLLM2.folder) if is_base(base) and not Path(base).is_dir() else base


def _shape(rank: int | None, dropout: float | None, adapter: Path | None) -> dict[str, Any]:
    """Rank, alpha and dropout of a new adapter. `InvalidInput` if a given adapter has its own."""
    given = {"--rank": rank, "--dropout": dropout}
    if adapter is not None and any(value is not None for value in given.values()):
        name = next(name for name, value in given.items() if value is not None)
        raise InvalidInput(
            f"{name} cannot be chosen here: the adapter {adapter} has its {name[2:]} already. "
            f"Leave out {name}, or leave out --init-adapter to begin a new adapter on the base."
        )
    made: dict[str, Any] = {}
    if rank is not None:
        made |= {"rank": rank, "alpha": 2 * rank}
    if dropout is not None:
        made["dropout"] = dropout
    return made


def _schedule(value: str) -> Schedules:
    if value not in ("cosine", "linear"):
        raise InvalidInput(f"--schedule is {value!r}; it may be cosine or linear.")
    return cast(Schedules, value)


def _quantization(value: str) -> Quantization:
    if value not in ("none", "nf4"):
        raise InvalidInput(f"--quantization is {value!r}; it may be none or nf4.")
    return cast(Quantization, value)
