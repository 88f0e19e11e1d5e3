"""How well a crisis is noticed in sentences that nobody who tunes has read.

Only counts and rates come out of here, so that a measurement does not show the sentences.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from scipy.stats import binomtest

from empo_demo.empathy.safety import assess, crisis_in
from empo_demo.empathy.sem import EmbeddedSEM
from recipes.crisis.fit import ROOT, SENTENCES

DOCUMENT = ROOT / "docs" / "safety.md"
START, END = "<!-- measured: start -->", "<!-- measured: end -->"
SEEN = frozenset({"d5786d3182a1", "317ab972dacf", "fb6c0b9b95b3", "0decdaa1ddaa"})
"""The first 12 hex digits of the SHA-256 of sentences that a person who tuned saw by accident."""


class Row(NamedTuple):
    """How many of `n` sentences get the card: with the SEM, without it, by patterns alone."""

    group: str
    crisis: bool
    n: int
    sem: int
    words: int
    patterns: int


def held_out() -> list[dict[str, str]]:
    """The sentences that measure: the half `test`, without those that were `SEEN`."""
    rows = [json.loads(line) for line in SENTENCES.read_text(encoding="utf8").splitlines()]
    return [row for row in rows if row["half"] == "test" and _hash(row["text"]) not in SEEN]


def measured() -> list[Row]:
    """One row for each group of sentences, by class, language and kind."""

    sem, rows = EmbeddedSEM(), held_out()
    texts = [row["text"] for row in rows]
    verdicts = [
        [bool(crisis_in([text], sem)) for text in texts],
        [bool(crisis_in([text])) for text in texts],
        [bool(assess(text).crisis) for text in texts],
    ]
    figures = []
    for group, crisis, places in _groups(rows):
        hits = [sum(verdict[i] for i in places) for verdict in verdicts]
        figures.append(Row(group, crisis, len(places), *hits))
    return figures


def _groups(rows: Sequence[dict[str, str]]) -> Iterator[tuple[str, bool, list[int]]]:
    for crisis in (True, False):
        of_class = [i for i, row in enumerate(rows) if bool(row["crisis"]) is crisis]
        yield "all", crisis, of_class
        for key in ("lang", "kind"):
            for value in sorted({rows[i][key] for i in of_class}):
                yield value, crisis, [i for i in of_class if rows[i][key] == value]


def written(document: str, rows: Iterable[Row]) -> str:
    """`document` with the table of `rows` between its two marks."""
    before, rest = document.split(START)
    after = rest.split(END)[1]
    head = (
        "| sentences | n | with the SEM | words alone | patterns alone |\n|---|---|---|---|---|\n"
    )
    return before + START + "\n" + head + "".join(map(_line, rows)) + END + after


def _line(row: Row) -> str:
    names = {"en": "English", "de": "German"}
    group = names.get(row.group, row.group.replace("_", ", "))
    label = f"{'crisis' if row.crisis else 'harmless'}: {group}"
    cells = (_rate(hits, row.n) for hits in (row.sem, row.words, row.patterns))
    return f"| {label} | {row.n} | {' | '.join(cells)} |\n"


def _rate(hits: int, n: int) -> str:
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    return f"{hits / n:.2f} [{low:.2f}, {high:.2f}]"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
