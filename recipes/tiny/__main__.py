"""`python -m recipes.tiny`: train the tiny dialogue model, and check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from empo_demo.terminal import OutputFolder, Seed, configure_logging, group, run

Data = Annotated[Path, typer.Option(help="Folder of the dialogue files.")]
app = group("Train the tiny dialogue model of assets/tiny/base, and check it.")


@app.command("base")
def base(
    data: Data,
    output: OutputFolder,
    init: Annotated[Path | None, typer.Option(help="A model to go on from.")] = None,
    passes: Annotated[float, typer.Option(help="Passes over all dialogues.")] = 2.0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Seed = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all.")] = 0,
) -> None:
    """The tiny dialogue model, from scratch or from a head start. Resumes after a kill."""
    from recipes.tiny import fit_base

    config = fit_base.TinyConfig(passes=passes, learning_rate=learning_rate, seed=seed)
    fit_base.run(data, output, init, config, threads=threads)
    typer.echo(f"The model is in {output}; `python -m recipes.tiny check` measures it.", err=True)


@app.command("check")
def check(
    model: Annotated[Path, typer.Option(help="Folder of a model that `base` trained.")],
    data: Data,
    dialogues: Annotated[int, typer.Option(help="Validation dialogues for perplexity.")] = 1000,
    replies: Annotated[int, typer.Option(help="Replies to sample.")] = 500,
    seed: Seed = 0,
) -> None:
    """Perplexity on human listener turns, and how soundly sampled replies end. Prints JSON."""
    import json

    from recipes.tiny import check_base

    report = check_base.run(model, data, dialogues=dialogues, replies=replies, seed=seed)
    typer.echo(json.dumps(report))


if __name__ == "__main__":
    configure_logging()
    run(app)
