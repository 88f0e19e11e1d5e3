"""Which of our numbers go with what people said: every predictor against a study's ratings.

A reply's score is the mean over its raters, averaged over the scales. A number is correlated with
it over all replies, within dialogues (which reply to the same person is better), within systems
(which replies of one writer are better), and with the length held. The number of words has no
correlation then: freed of itself, nothing of it is left. (Within groups of like length about .02
would remain, of what still varies inside a group.) Intervals are by dialogue, and the p over all
replies are one family (Holm).

No correlation can be expected above the ceiling: the square root of the reliability ICC(1, k) of
the scores themselves (Spearman 1904, correction for attenuation, with a perfect metric).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from empo_demo.board.agreement import Reliability, reliability
from empo_demo.board.rating_table import Columns, Rating, ratings_of, read_sheet
from empo_demo.engine.predictions import Prediction, Predictions
from empo_demo.errors import DataError
from empo_demo.evaluation.predictors import Column, columns
from empo_demo.evaluation.tools import Tools
from empo_demo.files import json_lines, parse_json
from empo_demo.metrics.lexical import words
from empo_demo.metrics.rank_correlation import Frame, RankCorrelation, spearman
from empo_demo.metrics.statistics import holm
from empo_demo.settings import ASSETS

HUMAN_STUDY = ASSETS / "human_study.json"
"""EmPO's study against our metrics, made by `python -m recipes.studies people`."""
HUMAN = "human"
"""The system whose replies are the references, if a study has one of this name."""


@dataclass(frozen=True, slots=True)
class RatedReplies:
    """The replies that people rated, in order: who wrote each, to what, and its mean ratings.

    `ratings` are those of these replies alone, and `scores` has a mean per reply and scale.
    """

    items: tuple[str, ...]
    systems: tuple[str, ...]
    predictions: Predictions
    scores: dict[str, list[float]]
    ratings: tuple[Rating, ...]

    @property
    def average(self) -> list[float]:
        """The mean over the scales of each reply."""
        return [sum(values) / len(values) for values in zip(*self.scores.values(), strict=True)]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one predictor stands to people's judgement; `scales` is the plain rho per scale."""

    metric: str
    better: str
    overall: RankCorrelation
    p_holm: float | None
    within_dialogues: RankCorrelation
    within_systems: RankCorrelation
    length_held: RankCorrelation
    scales: dict[str, float | None]

    def as_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "better": self.better,
            "n": self.overall.n,
            **_shown(self.overall),
            "p": self.overall.p,
            "p_holm": self.p_holm,
            "within_dialogues": _shown(self.within_dialogues),
            "within_systems": _shown(self.within_systems),
            "length_held": _shown(self.length_held),
            "scales": self.scales,
        }


def read_rated(ratings: Path, texts: Path, named: Columns, *, human: str = HUMAN) -> RatedReplies:
    """The rated replies of which `texts` has the words.

    `texts` is JSONL with `item`, `dialogue` (messages, the last by the user) and `replies` (system
    to text). Raises a `DataError` that names file and line.
    """
    known = _scaled(ratings_of(read_sheet(ratings, named)).ratings)
    by: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rating in known:
        by[rating.item, rating.contender][rating.dimension].append(rating.value)
    scales = list(dict.fromkeys(rating.dimension for rating in known))
    keys: list[tuple[str, str]] = []
    rows: list[Prediction] = []
    for item, context, replies, emotion in _dialogues(texts):
        for system, reply in replies.items():
            if set(by[item, system]) == set(scales):
                keys.append((item, system))
                reference = replies.get(human, "")
                rows.append(Prediction(context, context[-1], reference, reply, emotion))
    if not keys:
        raise DataError(
            f"No reply of {texts} was rated in {ratings}: the items, or the names of the systems, "
            "differ between the two files."
        )
    chosen = set(keys)
    return RatedReplies(
        tuple(item for item, _ in keys),
        tuple(system for _, system in keys),
        Predictions("rated", texts, tuple(rows)),
        {s: [sum(v := by[key][s]) / len(v) for key in keys] for s in scales},
        tuple(rating for rating in known if (rating.item, rating.contender) in chosen),
    )


def standings(
    rated: RatedReplies, predictors: Sequence[Column], *, human: str = HUMAN, seed: int = 0
) -> list[Standing]:
    """One `Standing` per predictor, in the order of `predictors`."""
    lengths = [float(len(words(text))) for text in rated.predictions.responses]
    made = [_standing(rated, column, lengths, human, seed) for column in predictors]
    tested = [i for i, predictor in enumerate(made) if predictor.overall.p is not None]
    corrected = holm([made[i].overall.p or 0.0 for i in tested])
    by_place = dict(zip(tested, corrected, strict=True))
    return [
        Standing(
            predictor.metric,
            predictor.better,
            predictor.overall,
            by_place.get(i),
            predictor.within_dialogues,
            predictor.within_systems,
            predictor.length_held,
            predictor.scales,
        )
        for i, predictor in enumerate(made)
    ]


def study(
    ratings: Path,
    texts: Path,
    tools: Tools,
    *,
    named: Columns,
    human: str = HUMAN,
    likelihoods: Sequence[Path] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """All predictors against the ratings of a study, as plain data without a text."""
    rated = read_rated(ratings, texts, named, human=human)
    found = columns(rated.predictions, tools, likelihoods=likelihoods)
    return as_json(rated, standings(rated, found, human=human, seed=seed))


def read_human_study(path: Path = HUMAN_STUDY) -> dict[str, Any]:
    """The stored figures of EmPO's study: `scales`, `average` and `judged`; {} without a file."""
    if not path.exists():
        return {}
    try:
        record = parse_json(path.read_text(encoding="utf8"))
        assert all(isinstance(record[key], dict) for key in ("scales", "average", "judged"))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError(
            f"{path} is not what `python -m recipes.studies people` writes: {error}."
        ) from None
    return dict(record)


def averaged(ratings: Sequence[Rating]) -> list[Rating]:
    """What each rater gave each reply, averaged over the scales; a yes or no is not among them."""
    by: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for rating in _scaled(ratings):
        by[rating.contender, rating.rater, rating.item].append(rating.value)
    return [Rating(*key, "average", sum(values) / len(values)) for key, values in by.items()]


def people_of(rated: RatedReplies) -> Reliability:
    """How well the raters agree on the average of the scales."""
    return reliability(
        (rating.rater, (rating.contender, rating.item), rating.value)
        for rating in averaged(rated.ratings)
    )


def as_json(rated: RatedReplies, found: Sequence[Standing]) -> dict[str, Any]:
    """The whole study as plain data, without a text."""
    return {
        "replies": len(rated.items),
        "items": len(set(rated.items)),
        "systems": sorted(set(rated.systems)),
        "scales": list(rated.scores),
        "people": people_of(rated).as_json(),
        "metrics": [predictor.as_json() for predictor in found],
    }


def _standing(
    rated: RatedReplies, column: Column, lengths: Sequence[float], human: str, seed: int
) -> Standing:
    keep = [
        i
        for i, value in enumerate(column.values)
        if value is not None and not (column.reference and rated.systems[i] == human)
    ]
    x = [column.values[i] or 0.0 for i in keep]
    items, systems = ([names[i] for i in keep] for names in (rated.items, rated.systems))
    held = [lengths[i] for i in keep]
    average = rated.average
    y = [average[i] for i in keep]

    def against(frame: Frame) -> RankCorrelation:
        return spearman(x, y, frame, seed=seed)

    return Standing(
        column.key,
        column.better,
        against(Frame(items)),
        None,
        against(Frame(items, groups=items)),
        against(Frame(items, groups=systems)),
        against(Frame(items, held=held)),
        {
            scale: spearman(x, [values[i] for i in keep], Frame(items), resamples=1).rho
            for scale, values in rated.scores.items()
        },
    )


def _scaled(ratings: Sequence[Rating]) -> list[Rating]:
    """The ratings on scales; a yes or no is not averaged with them."""
    values: dict[str, set[float]] = defaultdict(set)
    for rating in ratings:
        values[rating.dimension].add(rating.value)
    scales = {scale for scale, found in values.items() if found - {0.0, 1.0}} or set(values)
    return [rating for rating in ratings if rating.dimension in scales]


def _dialogues(
    path: Path,
) -> list[tuple[str, tuple[str, ...], dict[str, str], str | None]]:
    """(item, turns, replies by system, emotion or None) of each line."""
    dialogues = []
    for number, row in json_lines(path):
        try:
            if isinstance(row, ValueError):
                raise row
            turns = tuple(str(turn["content"]) for turn in row["dialogue"])
            replies = {str(name): str(text) for name, text in row["replies"].items()}
            if row["dialogue"][-1]["role"] != "user":
                raise ValueError("the dialogue does not end with the user's turn")
            dialogues.append((str(row["item"]), turns, replies, row.get("emotion")))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            why = error if isinstance(error, ValueError) else "it cannot be used"
            raise DataError(
                f"{path}:{number}: {why}. Expected: item, dialogue (a list of role and content "
                "that ends with the user) and replies (system to text)."
            ) from None
    return dialogues


def _shown(correlation: RankCorrelation) -> dict[str, Any]:
    return {
        "rho": correlation.rho,
        "interval": list(correlation.interval) if correlation.interval else None,
    }
