"""`python -m recipes.studies`: the studies whose figures `assets/` holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from empo_demo.terminal import (
    AsJson,
    ForceAdapter,
    OutputFolder,
    Seed,
    configure_logging,
    group,
    run,
)
from empo_demo.training.loop import Course

app = group("Measure what the shipped models do, and write it into assets/.")


@app.command()
def results(
    predictions: Annotated[
        list[Path], typer.Option(help="Predictions to summarise, base first; may be repeated.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: the app's own results.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="BERTScore's encoder, as for `score`.")] = "auto",
    retention: Annotated[
        Path | None, typer.Option(help="What `evaluate retention --json` printed.")
    ] = None,
    examples: Annotated[
        list[Path] | None, typer.Option(help="Predictions over dialogues that may be shown.")
    ] = None,
) -> None:
    """Summarise the shipped models' evaluation, without texts, for the Results tab."""
    from empo_demo.evaluation.results import RESULTS
    from recipes.studies.shipped import write

    write(
        predictions,
        output or RESULTS,
        encoder=encoder,
        kept=retention,
        examples=examples or [],
    )


@app.command()
def shipped(
    data: Annotated[Path, typer.Option(help="EmpatheticDialogues' validation split (JSONL).")],
    work: Annotated[Path, typer.Option(help="Folder of the replies; it is continued.")],
    contender: Annotated[
        list[str] | None, typer.Option(help="Base first, aligned last; may be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=20, help="Only the first N dialogues.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of all replies.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Dialogues answered together.")] = 16,
) -> None:
    """Rebuild assets/results.json: generate, retention, measure; no text of the data in it."""
    from recipes.studies.shipped import rebuild

    names = contender or ["base", "aligned"]
    rebuild(data, work, contenders=names, limit=limit, seed=seed, batch=batch)


@app.command("people")
def people(
    ratings: Annotated[Path, typer.Option(help="The study's table: item, system, rater, scales.")],
    texts: Annotated[Path, typer.Option(help="What was rated (JSONL): item, dialogue, replies.")],
    likelihood: Annotated[
        list[Path] | None, typer.Option(help="A folder of a causal model; may be repeated.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the dialogue files, for the judge of feeling.")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of all-mpnet-base-v2, which the judge reads with.")
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Folder of the judge's embeddings; it is continued.")
    ] = Path("runs/judge"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: the app's own.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """What the raters of EmPO's study said, and which metric goes with it; no text in it."""
    from empo_demo.evaluation.rated_replies import HUMAN_STUDY
    from recipes.studies.shipped import write_human_study

    place = output or HUMAN_STUDY
    judge = None
    if data is not None and encoder is not None:
        from recipes.effect.embeddings import Embeddings
        from recipes.effect.judge import fit

        judge = fit(data, Embeddings(encoder, work))
    write_human_study(ratings, texts, place, likelihoods=likelihood or [], judge=judge, seed=seed)


@app.command("votes-needed")
def votes_needed(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the page.")] = (
        Path("docs")
    ),
    seed: Seed = 0,
) -> None:
    """How many votes tell a share from one half: the page in docs/ and its curve."""
    from recipes.studies.votes_needed import write

    write(output, seed=seed)


@app.command("grid")
def grid(
    base: Annotated[str, typer.Option(help="Base model: a folder or a Hub id.")],
    reference: Annotated[Path, typer.Option(help="The SFT adapter that all started from.")],
    adapter: Annotated[list[str], typer.Option(help="NAME=DIR of an aligned adapter; repeat.")],
    pairs: Annotated[list[str], typer.Option(help="NAME=FILE of held-out pairs; repeat.")],
    limit: Annotated[int, typer.Option(min=2, help="Dialogues, drawn by the seed.")] = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Reward accuracy on held-out pairs: each adapter on each kind of rejected text."""
    from recipes.studies import grid as measured

    cells = measured.run(
        base,
        reference,
        measured.named_paths(adapter, "--adapter"),
        measured.named_paths(pairs, "--pairs"),
        limit=limit,
        seed=seed,
    )
    typer.echo(measured.as_json(cells) if as_json else measured.as_table(cells))


@app.command("side-by-side")
def side_by_side(
    card: Annotated[Path, typer.Option(help="The model card (README.md) to end with them.")],
    contender: Annotated[list[str], typer.Option(help="Id of a contender; repeat.")],
) -> None:
    """Fresh replies to our own prompts, as they come, into a model card."""
    from recipes.studies.side_by_side import write

    write(card, contender)


@app.command("simulate")
def simulate(
    data: Annotated[Path, typer.Option(help="Folder of the dialogue files.")],
    taste: Annotated[str, typer.Option(help="question, or random.")] = "question",
    rounds: Annotated[int, typer.Option(help="How often to vote and retrain.", min=1)] = 1,
    votes: Annotated[int, typer.Option(help="Simulated votes per round.", min=1)] = 500,
    output: OutputFolder = Path("runs/loop"),
    database: Annotated[str | None, typer.Option(help="A SQLAlchemy URL.")] = None,
    parent: Annotated[str, typer.Option(help="The contender to go on from.")] = "aligned",
    seed: Seed = 0,
) -> None:
    """The loop with voters of a given taste: votes, pairs, a new adapter, again."""
    from empo_demo.settings import load_settings
    from recipes.studies.simulate import Voters, run_loop

    settings = load_settings(database=database)
    course = Course(settings.database, output, parent, seed=seed)
    for contender in run_loop(settings, course, Voters(taste, votes, data), rounds):
        typer.echo(contender.id)


@app.command("hef")
def hef(
    data: Annotated[
        Path | None, typer.Option(help="Folder of the dialogue files; default: ../shared/data.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=2, help="Dialogues, drawn by the seed.")] = 1000,
    contender: Annotated[
        list[str] | None, typer.Option(help="Contenders without guidance; default: all such.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Answers so far; an existing file is continued.")] = (
        Path("hef-answers.jsonl")
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the figures to this file.")
    ] = None,
    two_step: Annotated[
        str | None, typer.Option(help="Also measure the two-step mode of this contender.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of all replies.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Dialogues answered together.")] = 16,
    as_json: AsJson = False,
    force_adapter: ForceAdapter = False,
) -> None:
    """Does the SEM's guidance help? None, SEM's reading, true emotion, shuffled; paired."""
    from recipes.studies.hef.command import run

    run(
        n=n,
        data=data,
        contenders=contender or [],
        work=work,
        output=output,
        two_step_of=two_step,
        seed=seed,
        batch=batch,
        as_json=as_json,
        force_adapter=force_adapter,
    )


if __name__ == "__main__":
    configure_logging()
    run(app)
