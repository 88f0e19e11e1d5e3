"""`evaluate retention`: what a model still knows after alignment, by lm-evaluation-harness.

Base and aligned answer the same questions with the same weights that the arena serves: same
quantisation, adapter applied. The standard error is that of the paired difference per question. It
is smaller and more correct than the sum of both models' errors.

The harness gets one contender as a plain transformers module: the engine loads it as its plan
says, and every row of every forward pass belongs to that contender. Answers can be kept in a
folder, by contender and revision, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import difflib
import json
import logging
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.contenders.load_roster import load_roster, revision
from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine.protocol import Engine
from empo_demo.errors import DataError, EngineError, InvalidInput, NotFound
from empo_demo.settings import ASSETS, Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

BENCHMARKS = tuple(
    str(ASSETS / "retention" / f"{name}.yaml")
    for name in ("hellaswag", "truthfulqa_mc1", "truthfulqa_mc2", "mmlu")
)
"""The tasks that `--data` asks without `--tasks`: their questions are in files of that folder."""
SAMPLE = 2_000
"""How many questions of each of them are asked without `--limit`: an accuracy within .022."""
Answers = dict[str, dict[str, dict[str, float]]]
"""Scores by task, metric and question."""


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
    data: Path | None = None,
    work: Path | None = None,
    force_adapter: bool = False,
) -> None:
    """The command: evaluate both, print a table or one JSON line."""
    from rich.console import Console

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if data is not None and not names:
        names, limit = list(BENCHMARKS), limit or SAMPLE
    harness = Harness(names, limit=limit, shots=shots, batch=batch, data=data, work=work)
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
            name = f"{contender.id}-{contender.revision}"
            answers[contender.id], members = harness.evaluate(model, name)
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
    base = Contender(id="base", base=aligned.base)
    return replace(base, revision=revision(base, roster))


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


class Harness:
    """Tasks that were checked once, and how to run them.

    `data` is handed to tasks that read a folder. `work` keeps what was answered.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        limit: int | None,
        shots: int | None,
        batch: int,
        data: Path | None = None,
        work: Path | None = None,
    ) -> None:
        self.limit, self.shots, self.batch, self.work = limit, shots, batch, work
        if data is not None and not data.is_dir():
            raise NotFound(
                f"There is no folder {data}; --data names that of the benchmarks' files."
            )
        try:
            from lm_eval.tasks import TaskManager  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise EngineError(
                "lm-evaluation-harness is not installed: pip install -e '.[train]'."
            ) from None
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        # It takes seconds to read the harness's own 14,000 tasks. YAML files do not need them.
        self.manager = TaskManager(
            include_defaults=not all(map(_is_file, names)),
            metadata=None if data is None else {"data": str(data.resolve())},
        )
        self.specs = [_checked(name, self.manager.all_tasks) for name in names]
        if not self.specs:
            raise InvalidInput(
                "No task is named: give --data FOLDER, or --tasks mmlu,leaderboard or a YAML file."
            )

    def evaluate(
        self, contender: ContenderModel, name: str
    ) -> tuple[Answers, dict[str, list[str]]]:
        """Scores by question, and the leaf tasks of each group among the tasks.

        Answers are kept under `name`, which must say which weights gave them.
        """
        import lm_eval  # type: ignore[import-untyped,import-not-found,unused-ignore]

        from empo_demo.evaluation.shared_prefix import SharedPrefixLM

        model = SharedPrefixLM(
            pretrained=contender.model, tokenizer=contender.tokenizer, batch_size=self.batch
        )
        if self.work is not None:
            self.work.mkdir(parents=True, exist_ok=True)
            model.kept = self.work / f"{name}.jsonl"
        try:
            results = lm_eval.simple_evaluate(
                model=model,
                tasks=list(self.specs),
                task_manager=self.manager,
                num_fewshot=self.shots,
                limit=self.limit,
                bootstrap_iters=0,
            )
        except Exception as error:
            # The harness passes on every error of a data set's loader and of a task's own code.
            reason = " ".join(str(error).split())[:300]
            raise EngineError(
                f"lm-evaluation-harness could not run {', '.join(map(str, self.specs))}: "
                f"{type(error).__name__}: {reason}"
            ) from error
        return _answers(results["samples"]), _members(results)


def _answers(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Answers:
    """The logged samples of lm-eval by task, metric and question, without non-numeric scores."""
    answers: Answers = {}
    for task, rows in samples.items():
        metrics: dict[str, dict[str, float]] = answers.setdefault(task, {})
        for row in rows:
            suffix = "" if row.get("filter", "none") == "none" else f",{row['filter']}"
            for metric in row.get("metrics", ()):
                score = row.get(metric)
                if isinstance(score, bool | int | float):
                    metrics.setdefault(metric + suffix, {})[str(row["doc_id"])] = float(score)
    return answers


def _members(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """The leaf tasks of each group, at any depth."""
    children: Mapping[str, Sequence[str]] = results.get("group_subtasks") or {}

    def leaves(name: str) -> list[str]:
        below = children.get(name)
        return [leaf for child in below for leaf in leaves(child)] if below else [name]

    return {group: leaves(group) for group, below in children.items() if below}


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _checked(name: str, known: Sequence[str]) -> str:
    """The name of a known task or group, or the absolute path of a YAML file with one."""
    if _is_file(name):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise NotFound(f"There is no task file {name}.")
        _check_yaml(path)
        return str(path)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f" Did you mean {', '.join(near)}?" if near else " `lm-eval ls tasks` lists them."
        raise NotFound(f"lm-evaluation-harness has no task {name!r}.{hint}")
    return name


def _check_yaml(path: Path) -> None:
    import yaml  # type: ignore[import-untyped,unused-ignore]

    class Loader(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        """Ignores the harness's own tags, such as !function."""

    Loader.add_multi_constructor("!", lambda *_: None)
    try:
        # This subclass of the safe loader only ignores tags.
        config = yaml.load(path.read_text(encoding="utf8"), Loader=Loader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not a readable YAML file: {reason}") from None
    if not isinstance(config, dict) or not ("task" in config or "group" in config):
        raise DataError(f"{path} describes no lm-eval task: it needs the key 'task' or 'group'.")


@dataclass(frozen=True, slots=True)
class ContenderModel:
    """A causal language model that answers as one contender, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_local(settings: Settings, roster: Roster, contenders: Sequence[Contender]) -> Engine:
    """An engine with only these contenders. Raises `EngineError` if their weights are not here."""
    from empo_demo.engine.loading import load_engine

    engine = load_engine(settings, replace(roster, contenders=tuple(contenders)))
    if not hasattr(engine, "model_of"):
        raise EngineError(
            f"EMPO_ENGINE holds {settings.engine!r}, which has no weights to evaluate; "
            "unset it, so that the models are loaded here."
        )
    return engine


@contextmanager
def open_model(engine: Engine, contender_id: str) -> Iterator[ContenderModel]:
    """The module of a contender, valid inside the context."""
    weights = engine.model_of(contender_id)  # type: ignore[attr-defined]
    adapter = weights.adapters[contender_id]

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        rows = len(tokens)
        counts = [tokens.shape[1]] * rows
        weights.rows.assign([adapter] * rows, [1.0] * rows, weights.like, counts)

    hook = None
    if weights.rows is not None:
        hook = weights.model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield ContenderModel(weights.model, weights.tokenizer)
    finally:
        if hook is not None:
            hook.remove()
