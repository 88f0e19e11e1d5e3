"""Each metric of the paper over one file of predictions: its figures, and one value per row.

The figures go into tables and JSON. The values per row, a series in the order of the file, are for
comparing systems. A row for which a metric is not defined has the value None and is counted under
`excluded`. Means and deviations are over the known values.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from empo_demo.engine.predictions import Predictions
from empo_demo.evaluation.tools import Tools
from empo_demo.metrics import diff_epitome, disclosure, lexical
from empo_demo.metrics.bertscore import bertscore
from empo_demo.metrics.lexical import nidf, words
from empo_demo.metrics.valence import Vad, difference, text_vad

Series = list[float | None]
_One = TypeVar("_One")
_Other = TypeVar("_Other")


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def means(columns: Mapping[str, Series]) -> dict[str, float | None]:
    return {key: mean(values) for key, values in columns.items()}


def deviation(values: Iterable[float | None]) -> float | None:
    """Standard deviation with ddof 1, as in the paper; None for fewer than two values."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def absolute(values: Iterable[float | None]) -> Series:
    return [None if value is None else abs(value) for value in values]


def columns(vads: Sequence[Vad]) -> dict[str, Series]:
    """Valence, arousal and dominance, each as a series."""
    return {"v": [x.v for x in vads], "a": [x.a for x in vads], "d": [x.d for x in vads]}


def paired(
    score: Callable[[_One, _Other], float],
    one: Iterable[_One | None],
    other: Iterable[_Other | None],
) -> Series:
    """`score` of each pair; None where one of the two is missing."""
    return [
        None if a is None or b is None else score(a, b) for a, b in zip(one, other, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """The result of one metric: keys of the system's JSON object, and series by name."""

    figures: dict[str, Any]
    series: dict[str, Series] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the tables: its label, the path of its figure in the JSON, and its decimals.

    `series` is the series whose interval stands beside the figure.
    """

    label: str
    path: tuple[str, ...]
    decimals: int
    series: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """All that is known of a metric; tables, report, comparisons and predictors read it here.

    `lower` are the series whose smaller values are better.
    """

    measure: Callable[[Predictions, Tools], Part]
    lines: tuple[Line, ...] = ()
    lower: tuple[str, ...] = ()


def measure_length(predictions: Predictions, _tools: Tools) -> Part:
    """Words per reply, split at white space."""
    counts: Series = [float(len(words(text))) for text in predictions.responses]
    return Part({}, {"length": counts})


def measure_distinct(predictions: Predictions, tools: Tools) -> Part:
    """Distinct-1/2/3 of the corpus, per response, and at an equal number of words."""
    texts = predictions.responses
    total = lexical.count_words(texts)
    budget = total if tools.budget is None else min(tools.budget, total)
    figures = {
        "corpus": _by_order(lambda n: lexical.distinct(texts, n)),
        "per_response": _by_order(lambda n: lexical.distinct_per_response(texts, n)),
        "equal_tokens": _by_order(lambda n: lexical.distinct_at(texts, n, budget)),
        "budget": budget,
    }
    series = {f"distinct-{n}": lexical.distinct_each(texts, n) for n in lexical.ORDERS}
    return Part({"distinct": figures}, series)


def measure_vad(predictions: Predictions, tools: Tools) -> Part:
    """Differences of valence, arousal and dominance between the user's last turn and the reply."""
    pairs = [
        (text_vad(row.user, tools.lexicon), text_vad(row.response, tools.lexicon))
        for row in predictions.rows
    ]
    maxima = columns([difference(user.max, reply.max) for user, reply in pairs])
    averages = columns([difference(user.mean, reply.mean) for user, reply in pairs])
    gaps = {key: absolute(values) for key, values in maxima.items()}
    figures = {
        "abs_max": means(gaps),
        "abs_max_sd": {key: deviation(values) for key, values in gaps.items()},
        "signed_max": means(maxima),
        "abs_mean": means({key: absolute(values) for key, values in averages.items()}),
        "signed_mean": means(averages),
        "response_max": means(columns([reply.max for _, reply in pairs])),
        "response_mean": means(columns([reply.mean for _, reply in pairs])),
        "lexicon": tools.lexicon.name,
    }
    series = {f"vad.{key}": values for key, values in gaps.items() if values[0] is not None}
    return Part({"vad": figures}, series)


def measure_nidf(predictions: Predictions, tools: Tools) -> Part:
    """Specificity per reply; None for replies without a token."""
    values: Series = [nidf(text, tools.nidf_table) for text in predictions.responses]
    return Part({tools.nidf_key: mean(values)}, {tools.nidf_key: values})


def measure_epitome(predictions: Predictions, tools: Tools) -> Part:
    """diff-EPITOME from the levels stored in the file; without them from the SEM's levels."""
    rows = predictions.rows
    if predictions.has_levels and tools.stored_levels:
        generated = [row.generated_levels or {} for row in rows]
        reference = [row.reference_levels or {} for row in rows]
        source = "stored in the file"
    else:
        generated = tools.epitome_levels([(row.user, row.response) for row in rows])
        reference = tools.epitome_levels([(row.user, row.reference) for row in rows])
        source = tools.sem_label
    of = {
        m: ([int(g[m]) for g in generated], [int(r[m]) for r in reference])
        for m in diff_epitome.MECHANISMS
    }
    figures = {
        "diff_epitome": {m: diff_epitome.diff_epitome(*of[m]) for m in of},
        "epitome_levels": {
            "generated": {m: diff_epitome.mean_level(of[m][0]) for m in of},
            "reference": {m: diff_epitome.mean_level(of[m][1]) for m in of},
        },
        "epitome_accuracy": {m: diff_epitome.accuracy(*of[m]) for m in of},
        "epitome_kappa": {m: diff_epitome.kappa(*of[m]) for m in of},
        "epitome_constant_zero": {m: diff_epitome.constant_zero(of[m][1]) for m in of},
        "epitome_source": source,
    }
    series: dict[str, Series] = {
        f"diff-epitome.{m}": list(diff_epitome.squared_differences(*of[m])) for m in of
    }
    series |= {f"level.{m}": list(map(float, of[m][0])) for m in of}
    return Part(figures, series)


def measure_bertscore(predictions: Predictions, tools: Tools) -> Part:
    """Precision, recall and F1 against the human's reply; an empty reply scores 0."""

    scores = bertscore(predictions.responses, predictions.references, tools.encoder)
    f1: Series = [score.f1 for score in scores]
    figures = {
        "precision": mean([score.precision for score in scores]),
        "recall": mean([score.recall for score in scores]),
        "f1": mean(f1),
        "encoder": tools.encoder.label,
    }
    key = tools.bertscore_key
    return Part({key: figures}, {f"{key}.f1": f1})


def measure_emotion(predictions: Predictions, tools: Tools) -> Part:
    """How well the reply's emotion matches the user's turn, with the human reply for comparison."""
    rows = predictions.rows
    user = tools.emotions([row.user for row in rows])
    reply = tools.emotions([row.response for row in rows])
    human = tools.emotions([row.reference for row in rows])
    overlaps = paired(overlap, user, reply)
    figures: dict[str, Any] = {
        "overlap": mean(overlaps),
        "top1": mean(paired(_same_top, user, reply)),
        "reference_overlap": mean(paired(overlap, user, human)),
        "reference_top1": mean(paired(_same_top, user, human)),
        "label_top1": mean(paired(_is_top, reply, [row.emotion for row in rows])),
        "sem": tools.sem_label,
    }
    return Part({"emotion": figures}, {"emotion.overlap": overlaps})


def measure_safety(predictions: Predictions, _tools: Tools) -> Part:
    """Counts of replies that disclose a machine, an identity or a piece of a template."""
    texts = predictions.responses
    leaks: Series = [
        float(disclosure.discloses_machine(text) or disclosure.leaks_identity(text))
        for text in texts
    ]
    return Part({"safety": disclosure.counts(texts)}, {"safety": leaks})


def measure_feeling(predictions: Predictions, tools: Tools) -> Part:
    """Shares of replies that treat good news as good and bad as bad, and the other way round.

    Nothing without a judge; `recipes/effect` has one. Its abstentions stay in the denominator.
    """
    if tools.judge is None:
        return Part({})
    verdicts = tools.judge(predictions)
    series: dict[str, Series] = {
        f"feeling.{kind}": [None if v is None else float(v == kind) for v in verdicts]
        for kind in ("right", "opposite", "unsure")
    }
    shares = {kind.removeprefix("feeling."): mean(values) for kind, values in series.items()}
    del series["feeling.unsure"]
    return Part({"feeling": shares}, series)


_DISTINCT = tuple(
    Line(f"distinct-{n}, {words}", ("distinct", kind, n), 4, series.format(n) or None)
    for kind, words, series in (
        ("corpus", "corpus", ""),
        ("equal_tokens", "equal words", ""),
        ("per_response", "per reply", "distinct-{}"),
    )
    for n in "123"
)
_VAD = tuple(
    Line(f"|Δ max {name}| ↓", ("vad", "abs_max", name[0]), 4, f"vad.{name[0]}")
    for name in ("valence", "arousal", "dominance")
)
_EPITOME = tuple(
    line
    for m in diff_epitome.MECHANISMS
    for line in (
        Line(f"diff-{m.upper()} ↓", ("diff_epitome", m), 4, f"diff-epitome.{m}"),
        Line("  constant zero", ("epitome_constant_zero", m), 4),
        Line("  mean level", ("epitome_levels", "generated", m), 3, f"level.{m}"),
        Line("  human's level", ("epitome_levels", "reference", m), 3),
        Line("  accuracy", ("epitome_accuracy", m), 3),
        Line("  kappa (one level: 0)", ("epitome_kappa", m), 3),
    )
)
_BERTSCORE = tuple(
    Line(f"BERTScore {name} ({words}) ↑", (key, name.lower()), 4, f"{key}.f1" * (name == "F1"))
    for key, words in (
        ("bertscore", "roberta-large"),
        ("bertscore_minilm", "the SEM's MiniLM"),
        ("bertscore_other", "the encoder named"),
    )
    for name in ("precision", "recall", "F1")
)

METRICS: dict[str, Metric] = {
    "feeling": Metric(
        measure_feeling,
        (
            Line("right feeling ↑", ("feeling", "right"), 3, "feeling.right"),
            Line("opposite feeling ↓", ("feeling", "opposite"), 3, "feeling.opposite"),
            Line("  the judge abstains", ("feeling", "unsure"), 3),
        ),
        lower=("feeling.opposite",),
    ),
    "length": Metric(
        measure_length,
        (Line("replies", ("n",), 0), Line("words per reply", ("words_mean",), 2, "length")),
    ),
    "distinct": Metric(
        measure_distinct,
        _DISTINCT,
    ),
    "vad": Metric(
        measure_vad,
        _VAD,
        lower=("vad.v", "vad.a", "vad.d"),
    ),
    "nidf": Metric(
        measure_nidf,
        (
            Line("NIDF ↑", ("nidf",), 4, "nidf"),
            Line("NIDF (own counts) ↑", ("nidf_own_counts",), 4, "nidf_own_counts"),
        ),
    ),
    "diff-epitome": Metric(
        measure_epitome,
        _EPITOME,
        lower=tuple(f"diff-epitome.{m}" for m in diff_epitome.MECHANISMS),
    ),
    "bertscore": Metric(measure_bertscore, _BERTSCORE),
    "emotion": Metric(
        measure_emotion,
        (
            Line("emotion overlap ↑", ("emotion", "overlap"), 4, "emotion.overlap"),
            Line("  human's reply", ("emotion", "reference_overlap"), 4),
        ),
    ),
    "safety": Metric(
        measure_safety,
        (
            Line("says it is a machine ↓", ("safety", "ai_disclosure"), 0),
            Line("names a model ↓", ("safety", "identity_leak"), 0),
            Line("leaks a template ↓", ("safety", "template_leak"), 0),
        ),
        lower=("safety",),
    ),
}
"""The metrics by the names that `score --metrics` takes, in the order of the tables.

A new metric is a file in `metrics/`, a row here, and a test.
"""

LINES = tuple(line for metric in METRICS.values() for line in metric.lines)
LOWER_IS_BETTER = tuple(name for metric in METRICS.values() for name in metric.lower)
"""Series whose smaller values are better. For the length neither is."""


def overlap(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Σ min(p, q) = 1 - total variation distance; 1 for equal distributions, 0 for disjoint.

    Our own measure of whether two texts have the same emotion: their overlap as the SEM reads them.
    """
    return sum(min(p, other.get(label, 0.0)) for label, p in one.items())


def top(distribution: Mapping[str, float]) -> str:
    """The most probable label; of several equal ones the first in the alphabet."""
    return min(distribution, key=lambda label: (-distribution[label], label))


def _by_order(value: Callable[[int], float | None]) -> dict[str, float | None]:
    return {str(n): value(n) for n in lexical.ORDERS}


def _same_top(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return float(top(one) == top(other))


def _is_top(read: Mapping[str, float], label: str) -> float:
    """1 if the reply's first emotion is the dialogue's label."""
    return float(top(read) == label)
