"""Reward accuracy as a grid: trained on one kind of rejected text, tested on each.

If a model learnt emotion from opposite-emotion pairs, it should recognise same-emotion rejections
no better than its reference does. If it learnt topic, it recognises them better. Rows are adapters,
columns are pair files.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Message
from empo_demo.errors import DataError, InvalidInput
from empo_demo.metrics.statistics import bootstrap_interval
from empo_demo.progress import progress
from empo_demo.training import pair_file

if TYPE_CHECKING:
    from empo_demo.engine.protocol import Engine

REFERENCE = "reference"
Key = tuple[str, str]
"""A prompt, as JSON, and a reply to it."""
Scores = Mapping[Key, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: the messages before the reply, and both replies."""

    conv_id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def keys(self) -> tuple[Key, Key]:
        """The replies to score: the chosen one, then the rejected one."""
        prompt = json.dumps(self.prompt)
        return (prompt, self.chosen), (prompt, self.rejected)


@dataclass(frozen=True, slots=True)
class Cell:
    """Shares in [0, 1] of `n` held-out pairs; chance is 0.5.

    `accuracy` is the share in which the implicit reward of DPO, log p(y|x) - log p_ref(y|x)
    (Rafailov et al. 2023), is higher for the chosen reply; None for the reference itself. `plain`
    is the share in which log p(y|x) is higher. Intervals: 95 %, bootstrap over dialogues.
    """

    trained_on: str
    tested_on: str
    n: int
    accuracy: float | None
    interval: tuple[float, float] | None
    plain: float
    plain_interval: tuple[float, float]


def run(
    base: str,
    reference: Path,
    adapters: Mapping[str, Path],
    pairs: Mapping[str, Path],
    *,
    limit: int,
    seed: int = 0,
    batch: int = 32,
) -> list[Cell]:
    """Score all pairs under the reference and every adapter on one copy of the base."""
    columns = sample({name: read_pairs(path) for name, path in pairs.items()}, limit, seed)
    names = [REFERENCE, *adapters]
    engine = _engine(base, {REFERENCE: reference, **adapters})
    wanted = sorted({key for column in columns.values() for pair in column for key in pair.keys})
    scores = {name: _score(engine, name, wanted, batch) for name in names}
    return [
        cell(name, tested, columns[tested], scores[name], scores[REFERENCE])
        for name in names
        for tested in columns
    ]


def cell(
    trained_on: str, tested_on: str, pairs: Sequence[Pair], scores: Scores, reference: Scores
) -> Cell:
    """One cell of the grid from the log-probabilities of both models."""

    def share(reward: Callable[[Key], float]) -> tuple[float, tuple[float, float]]:
        won = [float(reward(pair.keys[0]) > reward(pair.keys[1])) for pair in pairs]
        return sum(won) / len(won), bootstrap_interval(won)

    plain, plain_interval = share(lambda key: scores[key])
    accuracy, interval = (
        (None, None) if trained_on == REFERENCE else share(lambda key: scores[key] - reference[key])
    )
    return Cell(trained_on, tested_on, len(pairs), accuracy, interval, plain, plain_interval)


def read_pairs(path: Path) -> list[Pair]:
    """The pairs that `preferences build` wrote: one per dialogue, the first of several draws."""
    pairs: dict[str, Pair] = {}
    for row in _rows(path):
        pair = Pair(
            row["conv_id"],
            tuple(row["prompt"]),
            row["chosen"][-1]["content"],
            row["rejected"][-1]["content"],
        )
        pairs.setdefault(pair.conv_id, pair)
    return list(pairs.values())


def sample(columns: Mapping[str, Sequence[Pair]], limit: int, seed: int) -> dict[str, list[Pair]]:
    """The same `limit` dialogues of every column, so that the columns can be compared."""
    by_id = {name: {pair.conv_id: pair for pair in column} for name, column in columns.items()}
    common = sorted(set.intersection(*(set(pairs) for pairs in by_id.values())))
    if not common:
        raise DataError(
            "The pair files share no dialogue (conv_id); build them from one split with one seed."
        )
    chosen = random.Random(seed).sample(common, min(limit, len(common)))
    return {name: [pairs[one] for one in chosen] for name, pairs in by_id.items()}


def named_paths(values: Iterable[str], option: str) -> dict[str, Path]:
    """`NAME=PATH` options as a mapping. Raises `InvalidInput` on anything else."""
    paths: dict[str, Path] = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not (name and separator and path) or name in paths or name == REFERENCE:
            raise InvalidInput(
                f"{option} holds {value!r}; NAME=PATH was expected, each NAME once, none of them "
                f"{REFERENCE!r}."
            )
        paths[name] = Path(path)
    return paths


def as_json(cells: Sequence[Cell]) -> str:
    return json.dumps({"grid": [asdict(one) for one in cells]})


def as_table(cells: Sequence[Cell]) -> str:
    """The grid as a Markdown table, for the terminal and the model card."""
    tested = list(dict.fromkeys(one.tested_on for one in cells))
    lines = [
        f"| trained on | {' | '.join(f'tested on {name}' for name in tested)} |",
        f"|---|{'---|' * len(tested)}",
    ]
    for trained in dict.fromkeys(one.trained_on for one in cells):
        shown = [_shown(one) for one in cells if one.trained_on == trained]
        lines.append(f"| {trained} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _shown(one: Cell) -> str:
    value, (low, high) = one.plain, one.plain_interval
    if one.accuracy is not None and one.interval is not None:
        value, (low, high) = one.accuracy, one.interval
    note = " (log p alone)" if one.accuracy is None else ""
    return f"{value:.1%} [{low:.1%}, {high:.1%}]{note}"


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    return pair_file.read_pairs(path, also=("conv_id",))


def _engine(base: str, adapters: Mapping[str, Path]) -> Engine:
    """The arena's own engine, with every adapter on one unquantised copy of the base."""
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.engine.loading import load_engine
    from empo_demo.settings import load_settings

    missing = [path for path in adapters.values() if not (path / "adapter_config.json").is_file()]
    if missing:
        raise DataError(f"There is no adapter at {missing[0]}; give a folder that training wrote.")
    roster = Roster(
        "grid",
        tuple(Contender(name, base, str(path.resolve())) for name, path in adapters.items()),
        quantization="none",
    )
    settings = load_settings(quantization="none", adapter_plan="shared", engine="local")
    return load_engine(settings, roster)


def _score(engine: Any, name: str, keys: Sequence[Key], batch: int) -> dict[Key, float]:
    # Sorted by length, so that there is little padding.
    order = sorted(keys, key=lambda key: len(key[0]) + len(key[1]))
    scores: dict[Key, float] = {}
    for start in progress(range(0, len(order), batch), name):
        part = order[start : start + batch]
        asked = [(json.loads(prompt), reply) for prompt, reply in part]
        scored = engine.score(name, asked, batch=batch)
        scores |= {key: total for key, (total, _) in zip(part, scored, strict=True)}
    return scores
