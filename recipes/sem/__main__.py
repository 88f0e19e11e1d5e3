"""`python -m recipes.sem`: train the small empathetic model (SEM)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from empo_demo.terminal import OutputFolder, Seed, configure_logging, group, run

Data = Annotated[Path, typer.Option(help="Folder of the dialogue files.")]
app = group("Train the small empathetic model (SEM).")


@app.command()
def train(
    data: Data,
    output: OutputFolder,
    epochs: Annotated[float, typer.Option(help="Passes of each emotion run.")] = 2.0,
    runs: Annotated[int, typer.Option(help="Emotion runs, whose weights are averaged.")] = 1,
    seed: Seed = 0,
    start: Annotated[Path | None, typer.Option(help="Pretrained encoder to start from.")] = None,
    teachers: Annotated[
        bool, typer.Option(help="Learn from two teachers: as long again, and reads better.")
    ] = False,
    mpnet: Annotated[
        Path | None,
        typer.Option(help="Learn from MPNet, which is downloaded to this folder: hours."),
    ] = None,
    folds: Annotated[
        bool, typer.Option(help="Cross-validate the emotions: three more encoders to train.")
    ] = True,
) -> None:
    """The small empathetic model: one encoder, seven heads. Resumes after a kill."""
    from recipes.sem import fit

    fit.run(
        data,
        output,
        epochs=epochs,
        runs=runs,
        seed=seed,
        start=start,
        folds=folds,
        teachers=teachers,
        mpnet=mpnet,
    )
    typer.echo(f"The result is in {output}, its card in {output / 'README.md'}.", err=True)


if __name__ == "__main__":
    configure_logging()
    run(app)
