"""How good the judge is: on people's replies, on replies to the opposite, and on blind labels.

People's own replies should be judged right, people's replies to news of the other kind opposite.
What a person labelled blind shows how far the judge can be trusted on models' replies, and
compares the models without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from empo_demo.evaluation.tools import Feels
from empo_demo.metrics.statistics import bootstrap_interval
from recipes.effect.blind import LABELS, Labelled
from recipes.effect.cases import Case
from recipes.effect.judge import Judge, opposite_replies


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval, drawn by dialogue, and of how many replies it is."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share(hits: Sequence[bool], dialogues: Sequence[str]) -> Share:
    """The share of hits. Raises `ValueError` without any reply."""
    if not hits:
        raise ValueError("a share of nothing")
    values = [float(hit) for hit in hits]
    low, high = bootstrap_interval(values, groups=dialogues, resamples=2_000)
    return Share(sum(values) / len(values), low, high, len(values))


def on_people(judge: Judge, cases: Sequence[Case]) -> dict[str, dict[str, Share]]:
    """Right, opposite and unsure replies: people's own, and people's of the other kind.

    `clear` is the share of cases with a good or bad emotion that the judge speaks of at all.
    """
    felt = [case for case in cases if case.good is not None]
    is_clear = judge.clear(felt)
    clear = [case for case, one in zip(felt, is_clear, strict=True) if one]
    own = [case.item.reference for case in clear]
    return {
        "people": _verdicts(clear, judge.verdicts(clear, own)),
        "people, of the opposite": _verdicts(clear, judge.verdicts(clear, opposite_replies(clear))),
        "cases": {"clear": share(is_clear, [case.conv_id for case in felt])},
    }


def on_labels(judge: Judge, cases: Sequence[Case], labels: Sequence[Labelled]) -> dict[str, Any]:
    """How the judge and a person agree on models' replies; `table` counts person by judge."""
    by_id = {case.item.conv_id: case for case in cases}
    shown = [by_id[label.conv_id] for label in labels]
    verdicts = judge.verdicts(shown, [label.reply for label in labels])
    asked = [
        (one, verdict, case)
        for one, verdict, case in zip(labels, verdicts, shown, strict=True)
        if verdict is not None
    ]
    table = Counter((one.label, verdict) for one, verdict, _ in asked)
    spoken = [
        (one.label == verdict, one.label, case.conv_id)
        for one, verdict, case in asked
        if verdict != "unsure"
    ]
    decided = [(hit, conv_id) for hit, label, conv_id in spoken if label != "neither"]
    return {
        "n": len(labels),
        "judged": len(asked),
        "table": {
            label: {v: table[label, v] for v in ("right", "opposite", "unsure")} for label in LABELS
        },
        "agree": share([hit for hit, _, _ in spoken], [one for _, _, one in spoken]),
        "agree, both decided": share(
            [hit for hit, _ in decided], [ballot for _, ballot in decided]
        ),
    }


def by_model(labels: Sequence[Labelled]) -> dict[str, dict[str, Share]]:
    """The shares of a person's labels, by contender: the comparison without the judge."""
    found: dict[str, dict[str, Share]] = {}
    for name in dict.fromkeys(sorted(label.contender for label in labels)):
        own = [label for label in labels if label.contender == name]
        ids = [one.conv_id for one in own]
        found[name] = {
            str(label): share([one.label == label for one in own], ids) for label in LABELS
        }
    return found


def _verdicts(cases: Sequence[Case], verdicts: Sequence[Feels | None]) -> dict[str, Share]:
    asked = [(case, v) for case, v in zip(cases, verdicts, strict=True) if v is not None]
    ids = [case.conv_id for case, _ in asked]
    kinds: tuple[Feels, ...] = ("right", "opposite", "unsure")
    return {kind: share([v == kind for _, v in asked], ids) for kind in kinds}
