"""`python -m recipes.sem.told LABELS`: how it makes one feel to be told a reply.

LABELS holds a line {"said", "reply", "v"} per listener turn: what a person wrote, what answered it,
and how the answer makes one feel, from -2 to 2, labelled blind. The report compares today's reading
of the reply alone with the one of `empathy.feeling.told`, ten folds, and gives the numbers for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.errors import DataError
from empo_demo.training.corpus import read_lines
from recipes.sem.affect import WITHIN
from recipes.sem.folds import cross_validate
from recipes.sem.intervals import interval

FOLDS = 10
MOST = 2.0


def design(said: np.ndarray, replies: np.ndarray) -> np.ndarray:
    """(n, 4): 1, the reply's valence, the person's, and their product, as in `told`."""
    return np.column_stack([np.ones(len(said)), replies, said, said * replies])


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares, with a slight penalty so that two equal columns do no harm."""
    return np.asarray(np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ y))


def held_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each row is given by a fit without its fold."""
    folds = [i % FOLDS for i in range(len(y))]

    def read(_: int, own: list[int], others: list[int]) -> list[float]:
        return list(x[own] @ fit(x[others], y[others]))

    return np.array(cross_validate(folds, read))


def agreement(given: np.ndarray, truth: np.ndarray) -> float:
    """How often the sign is right, of the labels that are not 0."""
    told = truth != 0
    return float((np.sign(given[told]) == np.sign(truth[told])).mean()) if told.any() else 0.0


def correlation(given: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(given, truth)[0, 1])


def report(sem: EmbeddedSEM, rows: Sequence[tuple[str, str, float]]) -> dict[str, object]:
    """Figures with intervals of both readings, the weights, and the spread."""
    said, replies = (
        np.array([feeling.valence for feeling in sem.feelings(list(texts))])
        for texts in zip(*((person, reply) for person, reply, _ in rows), strict=True)
    )
    truth = np.array([label / MOST for _, _, label in rows])
    x = design(said, replies)
    better = held_out(x, truth)
    return {
        "n": len(truth),
        "today": _figures(replies, truth),
        "told, ten folds": _figures(better, truth),
        "weights": [round(float(w), 2) for w in fit(x, truth)],
        "spread": round(float(np.quantile(np.abs(better - truth), WITHIN)), 2),
    }


def _figures(given: np.ndarray, truth: np.ndarray) -> dict[str, list[float]]:
    groups = list(map(str, range(len(truth))))
    measures: dict[str, Callable[[np.ndarray, np.ndarray], float]]
    measures = {"r": correlation, "sign": agreement}
    found = {}
    for name, measure in measures.items():
        low, high = interval(groups, lambda i, m=measure: m(given[i], truth[i]))
        found[name] = [round(value, 3) for value in (measure(given, truth), low, high)]
    return found


def main(path: Path) -> None:
    rows = []
    for where, row in read_lines(path):
        try:
            rows.append((str(row["said"]), str(row["reply"]), float(row["v"])))
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: said, reply and v were expected.") from None
    print(json.dumps(report(EmbeddedSEM(), rows), indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
