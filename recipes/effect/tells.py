"""How well simple rules tell base from aligned: what a voter could learn to look for.

In a round both reply to the same text. A rule scores each reply and says that the one with the
higher score (or the lower, whichever fits the rounds that it learns from) is the aligned one. The
accuracy is cross-validated over rounds; chance is one half. All rules together are a logistic
regression on the differences. That a rule works says that the sides differ, which they should; a
name or a machine's phrase would say who is who, so those are counted apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from empo_demo.metrics.disclosure import counts
from empo_demo.metrics.statistics import bootstrap_interval
from recipes.effect.measured import Share

Array = NDArray[np.float64]
FOLDS = 10
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
_OPENERS = ("oh", "i'm sorry", "i am sorry", "that", "wow", "congrat", "it sounds", "i", "what")

RULES: dict[str, Callable[[str], list[float]]] = {
    "length": lambda text: [float(len(text.split()))],
    "sentences": lambda text: [float(len(_SENTENCE.findall(text)))],
    "a question": lambda text: [float("?" in text)],
    "ends with a question": lambda text: [float(text.rstrip().endswith("?"))],
    "exclamation marks": lambda text: [float(text.count("!"))],
    "opener": lambda text: [
        float(text.lower().replace("’", "'").startswith(opener)) for opener in _OPENERS
    ],
    "names and machine's phrases": lambda text: [float(sum(counts([text]).values()))],
}
"""Each rule's scores of one reply. Several scores are weighed by a regression."""


@dataclass(frozen=True, slots=True)
class Tells:
    """The accuracy of each rule and of all together, and what was disclosed, by contender."""

    rounds: int
    accuracy: dict[str, Share]
    disclosed: dict[str, dict[str, int]]


def measure(base: Sequence[str], aligned: Sequence[str], seed: int = 0) -> Tells:
    """Cross-validate the rules over rounds; `base` and `aligned` reply to the same texts."""
    scores = {name: _differences(rule, base, aligned) for name, rule in RULES.items()}
    scores["all rules together"] = np.concatenate(list(scores.values()), axis=1)
    return Tells(
        rounds=len(base),
        accuracy={name: _accuracy(rows, seed) for name, rows in scores.items()},
        disclosed={"base": counts(base), "aligned": counts(aligned)},
    )


def _differences(
    rule: Callable[[str], list[float]], base: Sequence[str], aligned: Sequence[str]
) -> Array:
    return np.array(
        [np.subtract(rule(b), rule(a)) for a, b in zip(base, aligned, strict=True)], float
    )


def _accuracy(differences: Array, seed: int) -> Share:
    """The share of rounds in which the reply named aligned is; a tie counts one half."""
    order = np.random.default_rng(seed).permutation(len(differences))
    hits = np.zeros(len(differences))
    for own in np.array_split(order, FOLDS):
        others = np.setdiff1d(order, own)
        said = differences[own] @ _weights(differences[others])
        hits[own] = (np.sign(said) + 1) / 2
    low, high = bootstrap_interval(hits.tolist(), resamples=2_000)
    return Share(float(hits.mean()), low, high, len(hits))


def _weights(differences: Array) -> Array:
    """A logistic regression without a constant: the sides of a round have no order."""
    from sklearn.linear_model import LogisticRegression

    scale = differences.std(axis=0) + 1e-9
    rows = differences / scale
    both = np.concatenate([rows, -rows])
    labels = np.repeat([1, 0], len(rows))
    if not both.any():
        return np.zeros(differences.shape[1])
    model = LogisticRegression(fit_intercept=False, C=1.0).fit(both, labels)
    found: Array = model.coef_[0] / scale
    return found


def rows(tells: Tells) -> list[list[str]]:
    """The accuracies as a table: rule, accuracy with its interval."""
    return [[name, str(share)] for name, share in tells.accuracy.items()]


def disclosures(disclosed: Mapping[str, Mapping[str, int]]) -> str:
    """One sentence on what the replies gave away."""
    parts = [
        f"{name}: {found['ai_disclosure']} say that they are a machine, "
        f"{found['identity_leak']} name a model"
        for name, found in disclosed.items()
    ]
    return "; ".join(parts) + "."
