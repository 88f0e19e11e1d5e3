"""`python -m recipes.pair`: the adapters in `assets/smollm2`, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from empo_demo.terminal import OutputFile, OutputFolder, configure_logging, group, run
from recipes.pair import settings

app = group("Make the adapters of the pair that everybody meets.")
Data = Annotated[Path, typer.Option(help="Folder of the dialogue files.")]
Sft = Annotated[Path, typer.Option(help="The adapter that `sft` made.")]
Pairs = Annotated[Path, typer.Option(help="The file that `pairs` wrote.")]


@app.command("sft")
def sft(
    data: Data,
    output: OutputFolder,
    init_adapter: Annotated[
        Path | None, typer.Option(help="An SFT adapter to go on from, for a shorter training.")
    ] = None,
) -> None:
    """Fine-tune on the listener's turns of ED-train. Goes on after a kill."""
    from empo_demo.training import sft as training

    training.run(settings.sft_job(output, init_adapter), data)


@app.command("pairs")
def pairs(data: Data, output: OutputFile) -> None:
    """Pairs of ED-train; beside them, as `.valid.jsonl`, those of folds 0 and 1 of ED-valid."""
    from empo_demo.training import preferences
    from recipes.sem.folds import fold_of

    said = preferences.from_dialogues(
        data,
        output,
        split="train",
        draws=1,
        seed=0,
        control="none",
        same_emotion=settings.SAME_EMOTION,
        most=settings.PAIRS,
    )
    typer.echo(said, err=True)
    held = _held(output)
    preferences.from_dialogues(data, held, split="valid", draws=1, seed=0, control="none")
    rows = [json.loads(line) for line in held.read_text(encoding="utf8").splitlines()]
    kept = [row for row in rows if fold_of(row["conv_id"]) != settings.REPORTED_FOLD]
    held.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf8"
    )
    held.with_suffix(".card.json").unlink()  # it describes the whole split
    typer.echo(f"{held}: {len(kept):,} pairs to watch the trainings on.", err=True)


@app.command("choose")
def choose(sft: Sft, pairs: Pairs, output: OutputFolder) -> None:
    """Four short DPO trainings; prints what each did to the replies of folds 0 and 1."""
    rows = []
    for choice in settings.TRIED:
        out = output / choice.name
        if not (out / "adapter_model.safetensors").is_file():
            _align(out, sft, pairs, choice, steps=settings.SHORT)
        rows.append((choice, last_figures(out / "log.jsonl")))
    typer.echo(table(rows))


@app.command("dpo")
def dpo(sft: Sft, pairs: Pairs, output: OutputFolder) -> None:
    """Align the fine-tuned adapter with the chosen settings. Goes on after a kill."""
    _align(output, sft, pairs, settings.CHOSEN)


def _align(out: Path, sft: Path, pairs: Path, choice: settings.Choice, *, steps: int = 0) -> None:
    from empo_demo.training.dpo import Watched, run_dpo

    run_dpo(
        settings.dpo_job(out, sft, choice, steps=steps),
        pairs,
        loss=choice.loss,
        beta=choice.beta,
        watched=Watched(_held(pairs), settings.WATCHED, 80 if steps == 0 else steps),
    )


def _held(pairs: Path) -> Path:
    return pairs.with_suffix(".valid.jsonl")


SHOWN = {
    "eval_rewards/accuracies": "accuracy",
    "eval_rewards/margins": "margin",
    "eval_logps/chosen": "log p chosen",
    "eval_logps/rejected": "log p rejected",
    "replies/words": "words",
    "replies/distinct_2": "distinct-2",
    "replies/repetition": "repetition",
    "replies/questions": "ask",
}


def last_figures(log: Path) -> dict[str, Any]:
    """The newest value of each figure in a training's log."""
    found: dict[str, Any] = {}
    for line in log.read_text(encoding="utf8").splitlines():
        found |= json.loads(line)
    return found


def table(rows: list[tuple[settings.Choice, dict[str, Any]]]) -> str:
    """A Markdown table: one line per choice, one column per figure of `SHOWN`."""
    lines = [
        f"| beta | rate | SFT weight | {' | '.join(SHOWN.values())} |",
        "|---" * (3 + len(SHOWN)) + "|",
    ]
    for choice, found in rows:
        cells = [f"{found[name]:.3g}" if name in found else "–" for name in SHOWN]
        lines.append(
            f"| {choice.beta:g} | {choice.rate:g} | {choice.sft_weight:g} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    configure_logging()
    run(app)
