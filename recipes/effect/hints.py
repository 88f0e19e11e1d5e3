"""What the hints do: the SEM's, the true emotion's (upper bound), shuffled ones (must not help).

Paired by dialogue against the same contender without a hint, on first listener's turns, with the
same seeds. Holm's correction is over all comparisons of the table but those of perplexity, whose
ratio has an interval only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from empo_demo.evaluation.measure import mean
from empo_demo.evaluation.tools import Feels
from empo_demo.metrics.statistics import Comparison, compare, holm
from recipes.effect.cases import Case
from recipes.effect.replies import HINTS, Replies
from recipes.studies.hef.effects import perplexity, perplexity_ratio
from recipes.studies.hef.runner import Condition

Series = Sequence[float | None]
NAMES: dict[Condition, str] = {
    "none": "none",
    "sem": "the SEM's",
    "true": "true emotion",
    "shuffled": "shuffled",
}
COLUMNS = ("right", "opposite", "ER", "words")
HEADINGS = ["model", "hint", "right", "opposite", "level of ER", "words", "perplexity"]


@dataclass(frozen=True)
class Read:
    """What is measured of replies to first turns: verdicts, and levels of emotional reactions."""

    verdicts: Callable[[Sequence[Case], Sequence[str]], Sequence[Feels | None]]
    reactions: Callable[[Sequence[Case], Sequence[str]], Sequence[float]]


def rows(
    cases: Sequence[Case], replies: Replies, read: Read, contenders: Sequence[str], seed: int = 0
) -> list[list[str]]:
    """The table: a star where the difference to no hint stands after Holm's correction.

    `cases` are all cases of `replies`; the first turns among them are those with hints.
    """
    places = [i for i, case in enumerate(cases) if case.turn == 1]
    first = [cases[i] for i in places]
    measured: dict[tuple[str, Condition], dict[str, Series]] = {}
    for name in contenders:
        plain = replies.texts(name)
        measured[name, "none"] = _columns(first, [plain[i] for i in places], read)
        for hint in HINTS:
            measured[name, hint] = _columns(first, replies.texts(name, hint), read)
    stands = _stands(measured, contenders, seed)
    table = []
    for name in contenders:
        none = [replies.found[name, "none"][i] for i in places]
        for hint, title in NAMES.items():
            answers = none if hint == "none" else replies.found[name, hint]
            value = perplexity(answers, seed)
            ratio = None if hint == "none" else perplexity_ratio(none, answers, seed)
            cells = [
                _shown(column, mean(measured[name, hint][column]))
                + "*" * ((name, hint, column) in stands)
                for column in COLUMNS
            ]
            table.append([name, title, *cells, _perplexity(value, ratio)])
    return table


def _columns(cases: Sequence[Case], texts: Sequence[str], read: Read) -> dict[str, Series]:
    verdicts = read.verdicts(cases, texts)
    return {
        "right": [None if v is None else float(v == "right") for v in verdicts],
        "opposite": [None if v is None else float(v == "opposite") for v in verdicts],
        "ER": list(read.reactions(cases, texts)),
        "words": [float(len(text.split())) for text in texts],
    }


def _stands(
    measured: Mapping[tuple[str, Condition], Mapping[str, Series]],
    contenders: Sequence[str],
    seed: int,
) -> set[tuple[str, str, str]]:
    """The comparisons with p < .05 after Holm's correction."""
    found: dict[tuple[str, str, str], Comparison] = {}
    for name in contenders:
        for hint in HINTS:
            for column in COLUMNS:
                pairs = [
                    (a, b)
                    for a, b in zip(
                        measured[name, "none"][column], measured[name, hint][column], strict=True
                    )
                    if a is not None and b is not None
                ]
                one, other = [a for a, _ in pairs], [b for _, b in pairs]
                if pairs:
                    found[name, hint, column] = compare(one, other, seed=seed)
    corrected = holm([effect.p for effect in found.values()])
    return {key for key, p in zip(found, corrected, strict=True) if p < 0.05}


def _shown(column: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if column == "words" else f"{value:.3f}"


def _perplexity(value: Mapping[str, Any] | None, ratio: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    certain = ratio is not None and not ratio["interval"][0] <= 1.0 <= ratio["interval"][1]
    return f"{value['value']:.2f}{'*' * certain}"
