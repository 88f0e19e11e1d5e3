"""Does a reply treat good news as good and bad news as bad? A judge that is not the SEM.

Two readers say how likely it is that a listener's turn answers good news: a logistic regression on
words and runs of words, and one on the sentence embeddings of MPNet. Both learn from the listeners
of ED-train. The judge adds their log-odds; below a threshold it abstains.

Every tenth dialogue's label does not say how its person feels ("jealous" of a friend's holiday, and
glad for her). There even people's replies look "opposite", and no reply could be judged. So a third
regression reads the person's own words, without the reply; the judge speaks of a case only where
label and words agree (`clear`). That is decided before any reply is seen, alike for all systems.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empo_demo.evaluation.tools import Feels
from recipes.effect.cases import CHOOSING, TRAIN, VALID, Case, read_cases

Array = NDArray[np.float64]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]

LEARNT = 14_000
"""How many listeners' turns of ED-train MPNet reads. The words are learnt from all 32,000."""
AGREED = 0.9
"""The share of people's replies that must be judged right where the judge speaks."""
_TOKEN = r"[a-z']+|[!?.]"
_RAREST = 3
_PENALTY = {"words": 2.0, "meaning": 3.0, "situation": 4.0}
"""The inverse strengths of the penalty on large weights, as scikit-learn's C."""


@dataclass(frozen=True)
class Words:
    """A logistic regression on words and runs of up to `runs` words."""

    vectors: Any
    model: Any

    @classmethod
    def fit(cls, texts: Sequence[str], good: Sequence[bool], runs: int, penalty: float) -> Words:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        vectors = TfidfVectorizer(
            ngram_range=(1, runs), min_df=_RAREST, sublinear_tf=True, token_pattern=_TOKEN
        )
        model = LogisticRegression(C=penalty, solver="liblinear", max_iter=200)
        return cls(vectors, model.fit(vectors.fit_transform(texts), good))

    def log_odds(self, texts: Sequence[str]) -> Array:
        """The log-odds that a text is good news, or answers it."""
        if not texts:
            return np.zeros(0)
        found: Array = self.model.decision_function(self.vectors.transform(texts))
        return found


@dataclass(frozen=True)
class Judge:
    """See the module. `least` is the |log-odds| from which the judge speaks."""

    words: Words
    meaning: Any
    situation: Words
    embed: Embed
    least: float = 0.0

    def log_odds(self, replies: Sequence[str]) -> Array:
        """The log-odds that a reply answers good news; above 0 both readers together say so."""
        if not replies:
            return np.zeros(0)
        meant: Array = self.meaning.decision_function(self.embed(replies))
        return self.words.log_odds(replies) + meant

    def clear(self, cases: Sequence[Case]) -> list[bool]:
        """Whether a case's emotion is good or bad and the person's words say the same."""
        said = self.situation.log_odds([_own_words(case) for case in cases])
        return [
            case.good is not None and (odds > 0) == case.good
            for case, odds in zip(cases, said, strict=True)
        ]

    def verdicts(self, cases: Sequence[Case], replies: Sequence[str]) -> list[Feels | None]:
        """What each reply's feeling is; None where the case is not `clear`."""
        found: list[Feels | None] = []
        judged = zip(cases, self.clear(cases), self.log_odds(replies), strict=True)
        for case, is_clear, odds in judged:
            if not is_clear:
                found.append(None)
            elif abs(odds) < self.least:
                found.append("unsure")
            else:
                found.append("right" if (odds > 0) == case.good else "opposite")
        return found


def fit(data: Path, embed: Embed, *, learnt: int = LEARNT, seed: int = 0) -> Judge:
    """A judge from ED-train, with the threshold that the folds `CHOOSING` of ED-valid give."""
    from sklearn.linear_model import LogisticRegression

    cases = [case for case in read_cases(data / TRAIN) if case.good is not None]
    random.Random(seed).shuffle(cases)
    good = [bool(case.good) for case in cases]
    replies = [case.item.reference for case in cases]
    words = Words.fit(replies, good, 3, _PENALTY["words"])
    meaning = LogisticRegression(C=_PENALTY["meaning"], max_iter=300)
    meaning.fit(embed(replies[:learnt]), good[:learnt])
    situation = Words.fit([_own_words(case) for case in cases], good, 2, _PENALTY["situation"])
    judge = Judge(words, meaning, situation, embed)
    choosing = read_cases(data / VALID, CHOOSING)
    clear = [
        case for case, is_clear in zip(choosing, judge.clear(choosing), strict=True) if is_clear
    ]
    odds = judge.log_odds([case.item.reference for case in clear])
    right = [(value > 0) == case.good for value, case in zip(odds, clear, strict=True)]
    return Judge(words, meaning, situation, embed, threshold(np.abs(odds), np.array(right)))


def threshold(sure: Array, right: NDArray[np.bool_], agreed: float = AGREED) -> float:
    """The lowest value from which on `right` has at least the share `agreed`.

    Where no value gives it, the highest one: the judge then hardly ever speaks.
    """
    order = np.argsort(-sure)
    ranked = sure[order]
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # Equal values are spoken of together or not at all.
    last = np.append(ranked[1:] != ranked[:-1], True)
    enough = np.flatnonzero(last & (shares >= agreed))
    return float(ranked[enough[-1]] if len(enough) else ranked[0])


def opposite_replies(cases: Sequence[Case], seed: int = 0) -> list[str]:
    """For each case a person's reply to news of the other kind, at the same turn."""
    draw = random.Random(seed)
    by_kind: dict[tuple[int, bool | None], list[str]] = {}
    for case in cases:
        by_kind.setdefault((case.turn, case.good), []).append(case.item.reference)
    return [draw.choice(by_kind[case.turn, not case.good]) for case in cases]


def _own_words(case: Case) -> str:
    return " / ".join(turn.content for turn in case.item.context.turns if turn.role == "user")
