"""How well each metric predicts what people chose, and how well another person would.

A metric predicts the side with the better score. Accuracy is over votes for a side; a metric with
equal scores counts one half. Kendall's tau-b also includes "about equal". "Both bad" does not
compare the sides and is left out. One person casts many votes, and many may judge one dialogue: the
interval of accuracy is clustered by both, that of tau resamples voters. The p against chance are
one family (Holm). The votes come from the database, which is not changed; those that are left out
are counted by reason.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.engine.predictions import Prediction, Predictions
from empo_demo.evaluation.predictors import Column, columns
from empo_demo.evaluation.tools import Tools
from empo_demo.metrics import statistics
from empo_demo.metrics.statistics import Interval, holm, interval_of, sign_flip_p
from empo_demo.settings import Settings
from empo_demo.votes.models import VERDICTS, Round, Vote
from empo_demo.votes.reasons import reason_left_out
from empo_demo.votes.store import Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORDER = {name: -int(k.outcome) for name, k in VERDICTS.items() if k.outcome is not None}
"""Verdicts on a scale from a to b, without those that compare nothing."""
RESAMPLES = 1_000
FEWEST = 5
"""With fewer decisive votes than this there is no figure, only a count."""
PEOPLE_AGREE = 0.8
"""How often two people pick the same reply of an empathetic dialogue: HEART, arXiv 2601.19922."""


@dataclass(frozen=True, slots=True)
class VotePair:
    """One vote: the user's turn, both replies, the verdict (a, b or tie), and the turns before."""

    voter: str
    user: str
    a: str
    b: str
    verdict: str
    before: tuple[str, ...] = ()

    @property
    def dialogue(self) -> tuple[str, ...]:
        return (*self.before, self.user)


@dataclass(frozen=True, slots=True)
class Scored:
    """One predictor for both sides of each vote; more is better, None where there is no number."""

    better: str
    both: list[tuple[float, float] | None]


Scores = dict[str, Scored]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One metric against the votes. The figures are None if there are too few votes."""

    metric: str
    better: str
    n: int
    voters: int
    accuracy: float | None
    accuracy_interval: Interval | None
    tau: float | None
    tau_interval: Interval | None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class PeopleAgree:
    """How often two voters who judged the same two replies picked the same one."""

    share: float | None
    pairs: int
    rounds: int


def vote_scores(
    pairs: Sequence[VotePair],
    tools: Tools,
    *,
    judged: bool = True,
    likelihoods: Sequence[Path] = (),
) -> Scores:
    """All predictors that need no human reply, for both sides of each vote.

    Without `judged`, only those that need no model.
    """
    if not pairs:
        return {}
    sides = [
        columns(_replies(pairs, side), tools, judged=judged, likelihoods=likelihoods)
        for side in ("a", "b")
    ]
    return {a.key: Scored(a.better, _together(a, b)) for a, b in zip(*sides, strict=True)}


def _replies(pairs: Sequence[VotePair], side: str) -> Predictions:
    rows = (Prediction(pair.dialogue, pair.user, "", getattr(pair, side)) for pair in pairs)
    return Predictions(side, Path(side), tuple(rows))


def _together(a: Column, b: Column) -> list[tuple[float, float] | None]:
    return [
        None if x is None or y is None else (x, y) for x, y in zip(a.values, b.values, strict=True)
    ]


def agreements(
    pairs: Sequence[VotePair], scores: Mapping[str, Scored], *, seed: int = 0
) -> list[Agreement]:
    """One `Agreement` per metric, in the order of `scores`, with Holm's correction over all."""
    result = []
    for metric, scored in scores.items():
        known = [(pair, both) for pair, both in zip(pairs, scored.both, strict=True) if both]
        found = agreement(
            metric,
            [b - a for _, (a, b) in known],
            [ORDER[pair.verdict] for pair, _ in known],
            [pair.voter for pair, _ in known],
            dialogues=[pair.dialogue for pair, _ in known],
            seed=seed,
        )
        result.append(replace(found, better=scored.better))
    tested = [i for i, row in enumerate(result) if row.p is not None]
    for i, p in zip(tested, holm([result[i].p or 0.0 for i in tested]), strict=True):
        result[i] = replace(result[i], p_holm=p)
    return result


def people_agree(pairs: Sequence[VotePair]) -> PeopleAgree:
    """Over all pairs of voters who picked a side of the same two replies to the same dialogue."""
    picks: dict[Any, dict[str, str]] = defaultdict(dict)
    for pair in pairs:
        if ORDER[pair.verdict]:
            picked = pair.a if ORDER[pair.verdict] < 0 else pair.b
            picks[pair.dialogue, frozenset((pair.a, pair.b))][pair.voter] = picked
    same = [
        x == y for voters in picks.values() for x, y in itertools.combinations(voters.values(), 2)
    ]
    shared = sum(len(voters) > 1 for voters in picks.values())
    return PeopleAgree(sum(same) / len(same) if same else None, len(same), shared)


def agreement(
    metric: str,
    differences: Sequence[float],
    verdicts: Sequence[int],
    voters: Sequence[str],
    *,
    dialogues: Sequence[Any] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Accuracy and tau-b of `differences` (b minus a) against `verdicts` (-1, 0, 1).

    Without `dialogues`, each vote is on a dialogue of its own.
    """
    import numpy as np

    x, y = np.asarray(differences, dtype=float), np.asarray(verdicts)
    people = len(set(voters))
    if int(np.count_nonzero(y)) < FEWEST:
        return Agreement(metric, "", len(x), people, None, None, None, None)
    picked = np.flatnonzero(y).tolist()
    hits = ((np.sign(x[picked]) * y[picked] + 1) / 2).tolist()
    who = [voters[i] for i in picked]
    what = [dialogues[i] if dialogues is not None else i for i in picked]
    return Agreement(
        metric,
        "",
        len(x),
        people,
        sum(hits) / len(hits),
        _within_bounds(statistics.mean(statistics.Scores(hits, who, what)).interval),
        _tau(x, y),
        interval_of(partial(_over, _tau, x, y), voters, resamples=resamples, seed=seed),
        sign_flip_p(_by_voter(hits, who), resamples=resamples, seed=seed),
    )


def _within_bounds(interval: Interval | None) -> Interval | None:
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


def _by_voter(hits: Sequence[float], voters: Sequence[str]) -> list[float]:
    """What each voter adds to the hits beyond chance."""
    sums: dict[str, float] = defaultdict(float)
    for hit, voter in zip(hits, voters, strict=True):
        sums[voter] += hit - 0.5
    return list(sums.values())


def _over(
    statistic: Callable[[NDArray[np.float64], NDArray[Any]], float | None],
    x: NDArray[np.float64],
    y: NDArray[Any],
    rows: NDArray[np.intp],
) -> float | None:
    return statistic(x[rows], y[rows])


def _tau(x: NDArray[np.float64], y: NDArray[Any]) -> float | None:
    """Kendall's tau-b; None if one of the two does not vary."""
    from scipy.stats import kendalltau  # type: ignore[import-untyped,unused-ignore]

    if len(set(x.tolist())) < 2 or len(set(y.tolist())) < 2:
        return None
    return float(kendalltau(x, y).statistic)


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
    *before, user = (str(turn["content"]) for turn in round_.dialogue)
    assert round_.vote is not None
    return VotePair(
        voter=round_.voter,
        user=user,
        a=round_.reply("a").text or "",
        b=round_.reply("b").text or "",
        verdict=round_.vote.verdict,
        before=tuple(before),
    )


def _exists(path: str | None) -> bool:
    return path is not None and path != ":memory:" and Path(path).exists()
