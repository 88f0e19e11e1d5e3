"""Makes the evaluation that is shipped with the app, `assets/results.json`, by one command, and
what people said in EmPO's study, `assets/human_study.json`, by another.

It contains figures, histograms and replies to our own dialogues, but no text of a data set.
"""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from empo_demo.board.rating_table import Columns, ratings_of, read_sheet
from empo_demo.board.ratings import summarise
from empo_demo.dialogue import Dialogue
from empo_demo.engine.predictions import Predictions, read_predictions
from empo_demo.evaluation import generate, rated_replies, report, retention
from empo_demo.evaluation.dialogues import Item
from empo_demo.evaluation.measure import METRICS
from empo_demo.evaluation.rated_replies import averaged
from empo_demo.evaluation.results import (
    RESULTS,
    Example,
    ResultsData,
    evaluate,
    read_retention,
)
from empo_demo.evaluation.retention import Harness
from empo_demo.evaluation.score import count_steps
from empo_demo.evaluation.tools import Feels, Tools
from empo_demo.progress import steps
from empo_demo.settings import ASSETS, load_settings
from recipes.effect.cases import Case
from recipes.effect.judge import Judge

EXAMPLE_DIALOGUES = ASSETS / "examples.json"
EVERYDAY = ASSETS / "retention" / "everyday.yaml"
WITHOUT_REFERENCE = ("length", "vad", "nidf", "emotion")
"""The metrics that need no human reply."""


def rebuild(
    data: Path, work: Path, *, contenders: Sequence[str], limit: int, seed: int = 0, batch: int = 16
) -> None:
    """Make `RESULTS` again: generate (or continue what is in `work`), retention, measure, write.

    The first contender is the base. The last one is the aligned contender of the retention.
    """
    from rich.console import Console

    (work / "examples").mkdir(parents=True, exist_ok=True)
    for name in contenders:
        generate.run(name, data, work / f"{name}.jsonl", limit=limit, seed=seed, batch=batch)
        own = work / "examples" / f"{name}.jsonl"
        generate.run(name, EXAMPLE_DIALOGUES, own, limit=None, seed=seed, batch=batch)
    harness = Harness([str(EVERYDAY)], limit=None, shots=None, batch=16)
    kept = work / "retention.json"
    record = retention.evaluate(contenders[-1], harness, Console(stderr=True, markup=False))
    kept.write_text(json.dumps(record, allow_nan=False), encoding="utf8")
    write(
        [work / f"{name}.jsonl" for name in contenders],
        RESULTS,
        kept=kept,
        examples=[work / "examples" / f"{name}.jsonl" for name in contenders],
    )


def write(
    predictions: Sequence[Path],
    output: Path,
    *,
    encoder: str = "auto",
    kept: Path | None = None,
    examples: Sequence[Path] = (),
) -> None:
    """Measure the files and store the figures, without texts.

    `examples` are predictions for our own dialogues, whose texts may be shipped.
    """
    tools = Tools(load_settings(), encoder_name=encoder)
    files = [read_predictions(path) for path in predictions]
    with steps(count_steps(files, METRICS)) as begin:
        data = evaluate(files, list(METRICS), tools, begin)
    shown = differing(examples, tools) if examples else []
    retained = read_retention(kept) if kept is not None else {}
    store(replace(data, examples=shown, retention=retained), output)
    if output == RESULTS:
        report.write_shipped(report.MARKDOWN)


def own_examples(contenders: Sequence[str], folder: Path, tools: Tools) -> list[Example]:
    """Our own dialogues on which the contenders differ most, with new replies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.jsonl" for name in contenders]
    for name, file in zip(contenders, files, strict=True):
        generate.run(name, EXAMPLE_DIALOGUES, file, limit=None, seed=0, batch=16)
    return differing(files, tools)


def differing(files: Sequence[Path], tools: Tools) -> list[Example]:
    """The examples of the Results tab, from predictions whose texts may be shipped."""
    own = [read_predictions(path) for path in files]
    with steps(count_steps(own, WITHOUT_REFERENCE)) as begin:
        return evaluate(own, WITHOUT_REFERENCE, tools, begin).examples


def store(data: ResultsData, output: Path) -> None:
    """Write the figures as the Results tab reads them."""
    from rich.console import Console

    text = json.dumps(asdict(data), ensure_ascii=False, allow_nan=False, indent=1)
    output.write_text(text + "\n", encoding="utf8")
    Console(stderr=True, markup=False).print(f"Written to {output}.", highlight=False)


def write_human_study(
    ratings: Path,
    texts: Path,
    output: Path,
    *,
    likelihoods: Sequence[Path],
    judge: Judge | None = None,
    seed: int = 0,
) -> None:
    """Store what the raters said of each system, and which metric goes with it, without texts."""
    of_rows = partial(verdicts, judge) if judge is not None else None
    given = ratings_of(read_sheet(ratings)).ratings
    record = {
        "made": datetime.date.today().isoformat(),
        "scales": summarise(given).as_json(),
        "average": summarise(averaged(given)).as_json(),
        "judged": rated_replies.study(
            ratings,
            texts,
            Tools(load_settings(), judge=of_rows),
            named=Columns(),
            likelihoods=likelihoods,
            seed=seed,
        ),
    }
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1)
    output.write_text(text + "\n", encoding="utf8")
    print(f"Written to {output}.")


def verdicts(judge: Judge, predictions: Predictions) -> Sequence[Feels | None]:
    """What the judge of feeling says of replies to dialogues of known emotion."""
    cases = [
        Case(str(i), 1, Item(str(i), _dialogue(row.context), row.reference, row.emotion))
        for i, row in enumerate(predictions.rows)
    ]
    return judge.verdicts(cases, predictions.responses)


def _dialogue(turns: Sequence[str]) -> Dialogue:
    roles = itertools.cycle(("user", "assistant"))
    return Dialogue.from_messages(
        [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)]
    )
