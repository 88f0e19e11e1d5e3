"""How people reply, as figures only: the pale bands behind the plots.

`assets/people.json` holds quartiles, measured by `page people` on EmpatheticDialogues, and
none of its texts: the valence of listeners' replies by the valence of the turn that they answer,
and the share of new words in all of a listener's turns by their number of words.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from empo_demo.dialogue import Dialogue
from empo_demo.metrics.diversity import count_words, distinct
from empo_demo.settings import ASSETS

PEOPLE = ASSETS / "people.json"
VALENCE_EDGES = {"vader": (-0.6, -0.2, 0.2, 0.6), "sem": (-0.3, -0.1, 0.1, 0.3)}
"""The classes of valence: the SEM's values lie closer together than the word list's."""
WORD_EDGES = (10, 15, 20, 30, 40, 60)
LEAST = 20
"""A class with fewer replies gives no band."""

Band = tuple[float, float]


def reply_band(valence: float, source: str) -> Band | None:
    """The quartiles of the valence of people's replies to a turn of this valence, in [-1, 1]."""
    return _at(_figures()["valence"].get(source), VALENCE_EDGES.get(source, ()), valence)


def diversity_band(words: int) -> Band | None:
    """The quartiles of people's shares of new words after `words` words, in [0, 1]."""
    return _at(_figures()["diversity"], WORD_EDGES, words)


def measure(
    dialogues: Iterable[Dialogue], valences: dict[str, Callable[[Sequence[str]], list[float]]]
) -> dict[str, Any]:
    """All figures of the file. `valences` gives a valence per text, by the name of its source."""
    whole = list(dialogues)
    pairs = [
        (one.turns[i - 1].content, one.turns[i].content)
        for one in whole
        for i in range(1, len(one.turns), 2)
    ]
    by_source = {}
    for source, judge in valences.items():
        felt = judge([text for pair in pairs for text in pair])
        by_source[source] = _quartiles(
            zip(felt[::2], felt[1::2], strict=True), VALENCE_EDGES[source]
        )
    said = [
        [turn.content for turn in one.turns[: i + 1] if turn.role == "assistant"]
        for one in whole
        for i in range(3, len(one.turns), 2)
    ]
    shares = ((count_words(texts), distinct(texts, 1) or 0.0) for texts in said)
    return {
        "dialogues": len(whole),
        "replies": len(pairs),
        "valence": by_source,
        "diversity": _quartiles(shares, WORD_EDGES),
    }


def _quartiles(
    points: Iterable[tuple[float, float]], edges: Sequence[float]
) -> list[list[float] | None]:
    import numpy as np

    classes: list[list[float]] = [[] for _ in range(len(edges) + 1)]
    for at, value in points:
        classes[bisect(edges, at)].append(value)
    return [
        [round(float(q), 3) for q in np.quantile(values, (0.25, 0.75))]
        if len(values) >= LEAST
        else None
        for values in classes
    ]


def _at(rows: Any, edges: Sequence[float], value: float) -> Band | None:
    found = rows[bisect(edges, value)] if rows else None
    return (found[0], found[1]) if found else None


@cache
def _figures() -> dict[str, Any]:
    return read(PEOPLE)


def read(path: Path) -> dict[str, Any]:
    """The file's figures."""
    return dict(json.loads(path.read_text(encoding="utf8")))
