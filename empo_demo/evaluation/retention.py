"""`evaluate retention`: what a model still knows after alignment, by lm-evaluation-harness.

Base and aligned answer the same questions with the same weights that the arena serves: same
quantisation, adapter applied. The standard error is that of the paired difference per question. It
is smaller and more correct than the sum of both models' errors.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.errors import InvalidInput
from empo_demo.evaluation.contender_model import load_local, open_model
from empo_demo.evaluation.harness import Answers, Harness
from empo_demo.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Retained:
    """One task and metric. `difference` is aligned - base, and `error` its standard error.

    `group` means a whole benchmark with its questions pooled. With one question, errors are None.
    """

    task: str
    metric: str
    n: int
    base: float
    base_error: float | None
    aligned: float
    aligned_error: float | None
    difference: float
    error: float | None
    group: bool = False


def run(
    contender_id: str,
    tasks: str,
    *,
    limit: int | None,
    shots: int | None,
    batch: int,
    as_json: bool,
    force_adapter: bool = False,
) -> None:
    """The command: evaluate both, print a table or one JSON line."""
    from rich.console import Console

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    harness = Harness(names, limit=limit, shots=shots, batch=batch)
    record = evaluate(
        contender_id, harness, Console(stderr=True, markup=False), force_adapter=force_adapter
    )
    if as_json:
        print(json.dumps(record, allow_nan=False))
    else:
        _print(record, Console(markup=False))


def evaluate(
    contender_id: str, harness: Harness, console: Console, *, force_adapter: bool = False
) -> dict[str, Any]:
    """What `--json` prints: base, aligned, revision, quantization, and the rows as `tasks`."""
    settings = load_settings(force_adapter=force_adapter or None)
    roster = load_roster(settings)
    aligned = roster[contender_id]
    base = base_of(aligned, roster)
    engine = load_local(settings, roster, (base, aligned))
    answers: dict[str, Answers] = {}
    members: dict[str, list[str]] = {}
    for contender in (base, aligned):
        console.print(f"Evaluating {contender.id}…", highlight=False)
        with open_model(engine, contender.id) as model:
            answers[contender.id], members = harness.evaluate(model)
    rows = compare(answers[base.id], answers[aligned.id], members)
    return {
        "base": base.id,
        "aligned": aligned.id,
        "revision": aligned.revision,
        "quantization": roster.quantization,
        "tasks": [asdict(row) for row in rows],
    }


def base_of(aligned: Contender, roster: Roster) -> Contender:
    """The contender with the same base weights and no adapter; `InvalidInput` without adapter."""
    if aligned.adapter is None:
        raise InvalidInput(
            f"The contender {aligned.id!r} has no adapter: retention compares an aligned model "
            "with its base. Name an aligned one; `python -m empo_demo contenders` lists them."
        )
    for contender in roster.contenders:
        if contender.base == aligned.base and contender.adapter is None:
            return contender
    return Contender(id="base", base=aligned.base)


def compare(
    base: Answers, aligned: Answers, members: Mapping[str, Sequence[str]] | None = None
) -> list[Retained]:
    """Each task and metric that both models answered, then the groups with pooled questions."""
    rows = [
        row
        for task in base
        for metric in base[task]
        if (row := _row(task, metric, base[task][metric], aligned[task].get(metric, {})))
    ]
    for group, tasks in (members or {}).items():
        for metric in dict.fromkeys(m for task in tasks for m in base.get(task, {})):
            pooled = [_pooled(answers, tasks, metric) for answers in (base, aligned)]
            row = _row(group, metric, *pooled, group=True)
            rows += [row] if row else []
    return rows


def _row(
    task: str,
    metric: str,
    base: Mapping[str, float],
    aligned: Mapping[str, float],
    *,
    group: bool = False,
) -> Retained | None:
    both = [key for key in base if key in aligned]
    if not both:
        return None
    ones, others = [base[key] for key in both], [aligned[key] for key in both]
    differences = [b - a for a, b in zip(ones, others, strict=True)]
    return Retained(
        task,
        metric,
        len(both),
        *_mean_error(ones),
        *_mean_error(others),
        *_mean_error(differences),
        group,
    )


def _mean_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error, sd (ddof 1) / sqrt(n)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, statistics.stdev(values) / math.sqrt(len(values))


def _pooled(answers: Answers, tasks: Sequence[str], metric: str) -> dict[str, float]:
    return {
        f"{task}/{question}": score
        for task in tasks
        for question, score in answers.get(task, {}).get(metric, {}).items()
    }


def _print(record: dict[str, Any], console: Console) -> None:
    from rich.table import Table

    table = Table("task", "metric", "n", record["base"], record["aligned"], "difference")
    for row in record["tasks"]:
        table.add_row(
            f"{row['task']} (all)" if row["group"] else row["task"],
            row["metric"],
            str(row["n"]),
            plus_minus(row["base"], row["base_error"]),
            plus_minus(row["aligned"], row["aligned_error"]),
            plus_minus(row["difference"], row["error"], sign="+"),
        )
    console.print(table)


def plus_minus(value: float, error: float | None, sign: str = "") -> str:
    shown = f"{value:{sign}.4f}"
    return shown if error is None else f"{shown} ± {error:.4f}"
