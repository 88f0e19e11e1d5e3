"""The terminal's evaluation: generate, retention, word counts, agreement, score, report.

Commands only parse, call and print. They import everything heavy when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from empo_demo.metrics.lexical import read_counts, write_counts
from empo_demo.terminal import AsJson, ForceAdapter, Seed, group, named_output

evaluate_app = group()


@evaluate_app.command()
def generate(
    contender: Annotated[str, typer.Option(help="Id of a contender; see `contenders`.")],
    data: Annotated[Path, typer.Option(help="Dialogues: JSONL of EmpatheticDialogues, .gz too.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="JSONL to write; an existing one is continued."),
    ],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N dialogues.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all replies.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Dialogues answered together.")] = 16,
    force_adapter: ForceAdapter = False,
) -> None:
    """Write one reply per dialogue, in place of the last listener turn."""
    from empo_demo.evaluation.generate import run

    run(contender, data, output, limit=limit, seed=seed, batch=batch, force_adapter=force_adapter)


@evaluate_app.command()
def retention(
    contender: Annotated[str, typer.Option(help="Id of a contender with an adapter.")],
    tasks: Annotated[
        str, typer.Option(help="lm-eval tasks or YAML files, commas between; or give --data.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of HellaSwag, TruthfulQA and MMLU (JSONL): asks 2,000 of each."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only N examples per task.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples in the prompt.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 8,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the answers so far; it is continued.")
    ] = None,
    as_json: AsJson = False,
    force_adapter: ForceAdapter = False,
) -> None:
    """Does the aligned model still know what its base knew? lm-evaluation-harness on both."""
    from empo_demo.evaluation.retention import run

    run(
        contender,
        tasks,
        limit=limit,
        shots=shots,
        batch=batch,
        as_json=as_json,
        data=data,
        work=work,
        force_adapter=force_adapter,
    )


@evaluate_app.command("word-counts")
def word_counts(
    data: Annotated[list[Path], typer.Option(help="Dialogues (JSONL, .gz); may be repeated.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The table to write (.tsv.gz).")],
) -> None:
    """Count in how many utterances each token occurs: the corpus of NIDF."""
    from collections import Counter

    counts: Counter[str] = Counter()
    for path in data:
        counts.update(read_counts(path))
    write_counts(counts, output)
    typer.echo(f"{len(counts):,} tokens written to {output}.", err=True)


@evaluate_app.command()
def agreement(
    ratings: Annotated[
        Path | None,
        typer.Option(help="A study's table: item, system, rater, scales (see `votes ratings`)."),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="What was rated, as JSONL: item, dialogue, replies by system."),
    ] = None,
    human: Annotated[str, typer.Option(help="The system whose replies people wrote.")] = "human",
    scale: Annotated[
        list[str] | None, typer.Option(help="A column of ratings; may be repeated.")
    ] = None,
    likelihood: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of a causal model that judges the replies; may be repeated."),
    ] = None,
    database: Annotated[str | None, typer.Option(help="A SQLAlchemy URL; else EMPO_DATABASE.")] = (
        None
    ),
    as_json: AsJson = False,
    seed: Seed = 0,
) -> None:
    """Which metric goes with what people say: with the votes here, and with a study's ratings."""
    from empo_demo.evaluation.people import run

    run(
        ratings,
        texts,
        human=human,
        scales=tuple(scale or ()),
        likelihoods=likelihood or (),
        database=database,
        as_json=as_json,
        seed=seed,
    )


def score(
    predictions: Annotated[
        list[Path], typer.Option(help="EmPO's CSV or our JSONL, .gz too; may be repeated.")
    ],
    metrics: Annotated[str, typer.Option(help="all, or names with commas between.")] = "all",
    as_json: AsJson = False,
    nidf_corpus: Annotated[
        Path | None, typer.Option(help="Word counts or dialogues for NIDF; default: ours of ED.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="BERTScore's encoder: auto, or NAME, or NAME:LAYER.")
    ] = "auto",
) -> None:
    """Score replies as the paper does; several files are compared row by row."""
    from empo_demo.evaluation.score import run_score

    run_score(predictions, metrics, as_json=as_json, nidf_corpus=nidf_corpus, encoder=encoder)


def report(
    file: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; default: the app's."),
    ] = None,
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Predictions to report; default: the app's own.")
    ] = None,
    metrics: Annotated[str, typer.Option(help="all, or names with commas between.")] = "all",
    encoder: Annotated[str, typer.Option(help="BERTScore's encoder, as for `score`.")] = "auto",
    retention: Annotated[
        Path | None, typer.Option(help="What `evaluate retention --json` printed.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write all figures as one JSON object instead.")
    ] = False,
) -> None:
    """Write an evaluation as tables in Markdown. Without options: the shipped `results.md`."""
    from empo_demo.evaluation.report import MARKDOWN, run, write_shipped

    output = output or file
    if not predictions and retention is None and not as_json:
        write_shipped(output or MARKDOWN)
        return
    run(
        named_output(output, None),
        predictions or [],
        metrics=metrics,
        encoder=encoder,
        retention=retention,
        as_json=as_json,
    )
