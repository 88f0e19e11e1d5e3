"""How well each metric predicts what people chose.

A metric predicts the side with the better score. Accuracy is over votes for a side; a metric with
equal scores counts one half. Kendall's tau-b also includes "about equal". "Both bad" does not
compare the sides and is left out. Intervals resample voters and not votes, because one person
casts many votes. The votes come from the database, which is not changed; those that are left out
are counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.evaluation.measure import METRICS
from empo_demo.evaluation.tools import Tools
from empo_demo.metrics import emotion_overlap
from empo_demo.metrics.statistics import interval_of
from empo_demo.settings import Settings
from empo_demo.votes.models import Round, Vote
from empo_demo.votes.reasons import reason_left_out
from empo_demo.votes.store import Store
from empo_demo.votes.verdicts import VERDICTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORDER = {name: -int(k.outcome) for name, k in VERDICTS.items() if k.outcome is not None}
"""Verdicts on a scale from a to b, without those that compare nothing."""
RESAMPLES = 1_000
FEWEST = 5
"""With fewer decisive votes than this there is no figure, only a count."""
Scores = dict[str, list[tuple[float, float] | None]]
"""The scores of both sides per vote, by metric. Larger is better."""
BETTER = {
    **{one.key: one.better for metric in METRICS.values() for one in metric.votes},
    "emotion.overlap": "nearer in emotion",
    "epitome.er": "more emotional reaction",
    "epitome.ex": "more exploration",
    "epitome.ip": "more interpretation",
}
"""What each metric counts as the better reply."""


@dataclass(frozen=True, slots=True)
class VotePair:
    """One vote: the user's turn, both replies, and the verdict (a, b or tie)."""

    voter: str
    user: str
    a: str
    b: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """One metric against the votes. The figures are None if there are too few votes."""

    metric: str
    better: str
    n: int
    voters: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    tau: float | None
    tau_interval: tuple[float, float] | None


def text_scores(pairs: Sequence[VotePair], tools: Tools) -> Scores:
    """The scores of the metrics that need no model, for both sides of each vote."""
    return {
        one.key: [_both(pair, one.score, tools) for pair in pairs]
        for metric in METRICS.values()
        for one in metric.votes
    }


def judged_scores(pairs: Sequence[VotePair], tools: Tools) -> Scores:
    """The scores of the metrics that the SEM judges: emotion overlap and EPITOME levels."""
    read = {
        side: tools.emotions([getattr(pair, side) for pair in pairs]) for side in ("user", "a", "b")
    }
    levels = {
        side: tools.epitome_levels([(pair.user, getattr(pair, side)) for pair in pairs])
        for side in ("a", "b")
    }
    scores: Scores = {"emotion.overlap": []}
    for user, a, b in zip(read["user"], read["a"], read["b"], strict=True):
        known = user is not None and a is not None and b is not None
        scores["emotion.overlap"].append(
            (emotion_overlap.overlap(user, a), emotion_overlap.overlap(user, b)) if known else None  # type: ignore[arg-type]
        )
    for mechanism in ("er", "ex", "ip"):
        scores[f"epitome.{mechanism}"] = [
            (float(a[mechanism]), float(b[mechanism]))
            for a, b in zip(levels["a"], levels["b"], strict=True)
        ]
    return scores


def agreements(
    pairs: Sequence[VotePair],
    scores: Mapping[str, Sequence[tuple[float, float] | None]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Agreement]:
    """One `Agreement` per metric, in the order of `scores`."""
    result = []
    for metric, values in scores.items():
        known = [(pair, both) for pair, both in zip(pairs, values, strict=True) if both is not None]
        differences = [b - a for _, (a, b) in known]
        verdicts = [ORDER[pair.verdict] for pair, _ in known]
        voters = [pair.voter for pair, _ in known]
        result.append(
            agreement(metric, differences, verdicts, voters, resamples=resamples, seed=seed)
        )
    return result


def agreement(
    metric: str,
    differences: Sequence[float],
    verdicts: Sequence[int],
    voters: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Accuracy and tau-b of `differences` (b minus a) against `verdicts` (-1, 0, 1)."""
    import numpy as np

    x, y = np.asarray(differences, dtype=float), np.asarray(verdicts)
    people = len(set(voters))
    better = BETTER.get(metric, "higher")
    if int(np.count_nonzero(y)) < FEWEST:
        return Agreement(metric, better, len(x), people, None, None, None, None)
    accuracy_interval, tau_interval = (
        interval_of(partial(_over, statistic, x, y), voters, resamples=resamples, seed=seed)
        for statistic in (_accuracy, _tau)
    )
    return Agreement(
        metric,
        better,
        len(x),
        people,
        _accuracy(x, y),
        accuracy_interval,
        _tau(x, y),
        tau_interval,
    )


def _over(
    statistic: Callable[[NDArray[np.float64], NDArray[Any]], float | None],
    x: NDArray[np.float64],
    y: NDArray[Any],
    rows: NDArray[np.intp],
) -> float | None:
    return statistic(x[rows], y[rows])


def _accuracy(x: NDArray[np.float64], y: NDArray[Any]) -> float | None:
    """Share of decisive votes whose side the metric prefers. Equal scores count one half."""
    import numpy as np

    decisive = y != 0
    if not decisive.any():
        return None
    hits = np.sign(x[decisive]) * y[decisive]
    return float(np.mean((hits + 1) / 2))


def _tau(x: NDArray[np.float64], y: NDArray[Any]) -> float | None:
    """Kendall's tau-b; None if one of the two does not vary."""
    from scipy.stats import kendalltau  # type: ignore[import-untyped,unused-ignore]

    if len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2:
        return None
    return float(kendalltau(x, y).statistic)


def _both(pair: VotePair, score: Any, tools: Tools) -> tuple[float, float] | None:
    a, b = score(pair.user, pair.a, tools), score(pair.user, pair.b, tools)
    return None if a is None or b is None else (a, b)


def read_vote_pairs(settings: Settings) -> tuple[list[VotePair], dict[str, int]]:
    """The pairs in order of time, and the number of votes that were left out, by reason.

    An installation without a database has no votes. Raises `StorageError` if it is broken.
    """
    from sqlalchemy import select
    from sqlalchemy.engine import make_url

    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not _exists(url.database):
        return [], {}
    store = Store.open(settings.database, create=False)
    pairs: list[VotePair] = []
    left_out: Counter[str] = Counter()
    try:
        with store.database.read() as session:
            for round_ in session.scalars(select(Round).join(Vote).order_by(Vote.id)):
                reason = _left_out(round_)
                if reason:
                    left_out[reason] += 1
                else:
                    pairs.append(_pair(round_))
    finally:
        store.close()
    return pairs, dict(left_out)


def _left_out(round_: Round) -> str | None:
    """Why a vote says nothing about the metrics; None if it does."""

    reason = reason_left_out(round_)
    if reason is not None:
        return reason
    if round_.vote is None or round_.vote.verdict not in ORDER:
        return "both bad"
    return "no text" if any(not reply.text for reply in round_.replies) else None


def _pair(round_: Round) -> VotePair:
    user = next(turn for turn in reversed(round_.dialogue) if turn["role"] == "user")
    assert round_.vote is not None
    return VotePair(
        voter=round_.voter,
        user=str(user["content"]),
        a=round_.reply("a").text or "",
        b=round_.reply("b").text or "",
        verdict=round_.vote.verdict,
    )


def _exists(path: str | None) -> bool:
    return path is not None and path != ":memory:" and Path(path).exists()
