"""`python -m recipes.effect`: what alignment changed in the pair, measured, into assets/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from empo_demo.terminal import configure_logging, group, run

app = group("Measure what alignment changed in the pair, and write it into assets/.")

Data = Annotated[Path, typer.Option(help="Folder of the data sets (EmpatheticDialogues).")]
Kept = Annotated[Path, typer.Option(help="Folder of what was made so far; it is continued.")]
Encoder = Annotated[Path, typer.Option(help="Folder of all-mpnet-base-v2, or of its five wheels.")]
Batch = Annotated[int, typer.Option(min=1, help="Dialogues answered together.")]
Dialogues = Annotated[
    int | None, typer.Option(min=20, help="Only so many dialogues of the fold, drawn by a seed.")
]


@app.command("table")
def table(
    data: Data,
    encoder: Encoder,
    work: Kept,
    dialogues: Dialogues = None,
    batch: Batch = 32,
    hints: Annotated[
        int | None,
        typer.Option(min=0, help="Of how many dialogues first turns also get hints; default: all."),
    ] = None,
) -> None:
    """Answer, judge, compare: results.json, studies.json and results.md; no text of the data."""
    from recipes.effect.embeddings import unpack
    from recipes.effect.table import Work
    from recipes.effect.table import run as measure

    folder = unpack(encoder, work / "encoder")
    measure(data, folder, Work(work), dialogues=dialogues, batch=batch, hints=hints)


@app.command("blind")
def blind(
    data: Data,
    work: Kept,
    n: Annotated[int, typer.Option("--n", min=3, help="Replies to label.")] = 200,
    batch: Batch = 32,
    dialogues: Dialogues = None,
    seed: Annotated[int, typer.Option(help="Which cases, whose replies, in which order.")] = 0,
) -> None:
    """Write replies to label: WORK/blind/blind.jsonl, with instructions; the model is hidden."""
    from recipes.effect import blind as labels
    from recipes.effect.cases import REPORT, VALID, draw, read_cases
    from recipes.effect.replies import PLAIN, answer

    # The same dialogues as the table's, so that no reply is written for the labels alone.
    cases = draw(read_cases(data / VALID, REPORT), dialogues)
    chosen = labels.choose(cases, PLAIN, n, seed)
    said: dict[str, str] = {}
    for name in PLAIN:
        own = [case for case, whose in chosen if whose == name]
        texts = answer(own, work, contenders=(name,), hinted=(), batch=batch).texts(name)
        said |= {case.item.conv_id: text for case, text in zip(own, texts, strict=True)}
    labels.write(chosen, [said[case.item.conv_id] for case, _ in chosen], work / "blind", seed=seed)
    typer.echo(f"{len(chosen)} replies in {work / 'blind' / labels.LABELLED}.", err=True)


@app.command("probes")
def probes(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: docs/safety.md.")
    ] = None,
) -> None:
    """Crisis, identity and personal data put to base and aligned; into docs/safety.md."""
    from recipes.effect.probes import GUIDE
    from recipes.effect.probes import run as probe

    probe(output or GUIDE)


@app.command("first-look")
def first_look(
    output: Annotated[Path, typer.Option("--output", "-o", help="The table (Markdown).")],
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; default: 1 and 2.")] = None,
) -> None:
    """Rounds on our own situations, to choose the recorded round, the chips, Explore's opening."""
    from recipes.effect.first_look import candidates, look
    from recipes.effect.first_look import table as shown

    output.write_text(shown(list(look(candidates(), seed or [1, 2]))), encoding="utf8")


if __name__ == "__main__":
    configure_logging()
    run(app)
