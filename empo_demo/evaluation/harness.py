"""Runs lm-evaluation-harness: checks the tasks, and collects the score of each question."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from empo_demo.errors import DataError, EngineError, InvalidInput, NotFound
from empo_demo.evaluation.contender_model import ContenderModel

Answers = dict[str, dict[str, dict[str, float]]]
"""Scores by task, metric and question."""


class Harness:
    """Tasks that were checked once, and how to run them."""

    def __init__(
        self, names: Sequence[str], *, limit: int | None, shots: int | None, batch: int
    ) -> None:
        self.limit, self.shots, self.batch = limit, shots, batch
        try:
            from lm_eval.tasks import TaskManager  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError:
            raise EngineError(
                "lm-evaluation-harness is not installed: pip install -e '.[train]'."
            ) from None
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        # It takes seconds to read the harness's own 14,000 tasks. YAML files do not need them.
        self.manager = TaskManager(include_defaults=not all(map(_is_file, names)))
        self.specs = [_checked(name, self.manager.all_tasks) for name in names]
        if not self.specs:
            raise InvalidInput("No task is named: give --tasks mmlu,leaderboard or a YAML file.")

    def evaluate(self, contender: ContenderModel) -> tuple[Answers, dict[str, list[str]]]:
        """Scores by question, and the leaf tasks of each group among the tasks."""
        import lm_eval  # type: ignore[import-untyped,import-not-found,unused-ignore]
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped,import-not-found,unused-ignore]

        model = HFLM(
            pretrained=contender.model, tokenizer=contender.tokenizer, batch_size=self.batch
        )
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
