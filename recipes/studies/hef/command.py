"""`python -m recipes.studies hef`: load, answer what is missing, judge, print, write."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.empathy.plugins import load_sem, read_all
from empo_demo.errors import InvalidInput
from empo_demo.evaluation.tools import Tools
from empo_demo.metrics.bertscore import bertscore
from empo_demo.settings import ROOT, Settings, load_settings
from recipes.studies.hef.effects import Judges, figures, human_figures, sem_figures
from recipes.studies.hef.reply_judge import train_judge
from recipes.studies.hef.runner import (
    CONDITIONS,
    TRAIN,
    VALID,
    Answer,
    Case,
    Key,
    Runner,
    fill,
    read_answers,
    read_cases,
)
from recipes.studies.hef.two_step import two_step

if TYPE_CHECKING:
    from rich.console import Console

    from empo_demo.empathy.sem import SEM

DATA = ROOT.parent / "shared" / "data"
"""The folder of the research data beside a clone. It is not part of the repository."""
COLUMNS = {
    "perplexity": "perplexity",
    "emotion_probability": "P(emotion)",
    "emotion_match": "match",
    "epitome_er": "ER",
    "epitome_ip": "IP",
    "epitome_ex": "EX",
    "bertscore": "BERTScore",
    "bertscore_minilm": "BERTScore (MiniLM)",
    "bertscore_other": "BERTScore (other)",
    "words": "words",
}


def run(
    *,
    n: int,
    data: Path | None,
    contenders: Sequence[str],
    work: Path,
    output: Path | None,
    two_step_of: str | None,
    seed: int,
    batch: int,
    as_json: bool,
    force_adapter: bool = False,
) -> None:
    """Evaluate HEF. `--json` prints one line; `output` gets the same object."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, width=None if sys.stderr.isatty() else 120)
    settings = load_settings(force_adapter=force_adapter or None)
    roster = load_roster(settings)
    chosen = chosen_contenders(roster, contenders)
    data = data or DATA
    from empo_demo.engine.loading import load_engine

    with console.status("Loading the models and reading the dialogues…"):
        sem, engine = load_sem(settings), load_engine(settings, roster)
        cases = read_cases(data / VALID, n, partial(read_all, sem), seed)
    if len(cases) < n:
        console.print(f"The reporting fold holds {len(cases)} dialogues; all are used.")
    fill(Runner(engine, roster, label_of(sem), seed), chosen, cases, work, batch)
    with console.status("Judging the replies…"):
        judges = load_judges(data, settings, sem)
        answers = read_answers(work)
        result = summary(roster, chosen, cases, answers, judges, sem=sem, seed=seed)
    if two_step_of is not None:
        replies = two_step(engine, roster[two_step_of], cases, roster, batch)
        result["two_step"] = {two_step_of: replies}
    if output is not None:
        output.write_text(json.dumps(result, indent=1), encoding="utf8")
    print_table(result, console)
    if as_json:
        print(json.dumps(result))


def chosen_contenders(roster: Roster, names: Sequence[str]) -> list[Contender]:
    """The named contenders, or all without guidance, because the conditions add it."""
    chosen = [roster[name] for name in names] or [c for c in roster.contenders if not c.guided]
    for contender in chosen:
        if contender.guided:
            raise InvalidInput(
                f"{contender.id!r} carries guidance already; name a contender without, such as "
                f"{next((c.id for c in roster.contenders if not c.guided), 'base')!r}."
            )
    return chosen


def load_judges(data: Path, settings: Settings, sem: SEM) -> Judges:
    """The reply judge, trained now, and EPITOME and BERTScore if the SEM supports them."""

    judge = train_judge(data / TRAIN)
    tools = Tools(settings)
    tools.sem = sem
    if not hasattr(sem, "epitome"):
        return Judges(judge)
    encoder = tools.encoder
    return Judges(
        emotion=judge,
        levels=tools.epitome_levels,
        bertscore=lambda replies, gold: [s.f1 for s in bertscore(replies, gold, encoder)],
        bertscore_label=encoder.label,
        bertscore_key=tools.bertscore_key,
    )


def summary(
    roster: Roster,
    contenders: Sequence[Contender],
    cases: Sequence[Case],
    answers: Mapping[Key, Answer],
    judges: Judges,
    *,
    sem: Any,
    seed: int,
) -> dict[str, Any]:
    """The object that `--json` prints."""

    summary = {}
    for contender in contenders:
        rows = {
            condition: [
                answers[contender.revision, label_of(sem), condition, case.item.conv_id, seed]
                for case in cases
            ]
            for condition in CONDITIONS
        }
        summary[contender.id] = {
            "revision": contender.revision,
            "conditions": figures(cases, rows, judges, seed),
        }
    return {
        "n": len(cases),
        "seed": seed,
        "roster": roster.name,
        "split": "EmpatheticDialogues valid, reporting fold",
        "sem": {"name": label_of(sem), **sem_figures(cases, roster.hef_top_k)},
        "judge": judges.emotion.name,
        "bertscore_encoder": judges.bertscore_label,
        "human": human_figures(cases, judges),
        "contenders": summary,
    }


def label_of(sem: SEM) -> str:
    """name@revision."""
    return f"{sem.name}@{sem.revision}"


def print_table(result: dict[str, Any], console: Console) -> None:
    """One row per contender and condition. An asterisk means that the interval of the difference
    to no guidance excludes 0."""
    from rich.table import Table

    measured = {
        name
        for entry in result["contenders"].values()
        for cells in entry["conditions"].values()
        for name in cells
    }
    columns = [name for name in COLUMNS if name in measured]
    titles = (COLUMNS[name] for name in columns)
    table = Table("contender", "guidance", *titles, title=f"HEF, n = {result['n']}")
    for name, entry in result["contenders"].items():
        for condition, cells in entry["conditions"].items():
            table.add_row(name, condition, *(_cell(cells, column) for column in columns))
    human = result["human"]
    table.add_row("human", "–", *(f"{human[c]:.3f}" if c in human else "–" for c in columns))
    console.print(table)
    for name, entry in result.get("two_step", {}).items():
        console.print(two_step_line(name, entry), highlight=False)


def two_step_line(name: str, entry: dict[str, Any]) -> str:
    """One sentence on a two-step measurement."""
    accuracies = ", ".join(
        f"{label} {entry[key]['accuracy']:.1%}"
        for key, label in (
            ("together", "together"),
            ("sem_alone", "SEM alone"),
            ("model_alone", "model alone"),
        )
    )
    readable = f"{entry['readable']:.0%} of its first steps could be read"
    if not entry["measurable"]:
        return f"Two-step, {name}: not measurable with this model ({readable}; {accuracies})."
    return f"Two-step, {name}: {accuracies} ({readable}, n = {entry['n']})."


def _cell(cells: dict[str, Any], column: str) -> str:
    if cells.get(column) is None:
        return "–"
    value = cells[column].get("value", cells[column].get("mean"))
    paired = cells.get("against_none", {}).get(column)
    neutral = 1.0 if column == "perplexity" else 0.0
    certain = paired is not None and not paired["interval"][0] <= neutral <= paired["interval"][1]
    digits = 2 if column in ("perplexity", "words") else 3
    return f"{value:.{digits}f}{'*' if certain else ''}"
