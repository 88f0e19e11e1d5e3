"""Specificity: normalised inverse document frequency of See et al. 2019 (arXiv 1902.08654).

As in MichiganNLP's `empathy_eval`, which EmPO uses: a document is an utterance of
EmpatheticDialogues (training and validation split), tokens are NLTK's with their case kept, and a
token that is in no utterance has the highest specificity.
"""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from empo_demo.errors import DataError
from empo_demo.files import parse_json, read_text
from empo_demo.metrics.tokens import tokens

UNKNOWN = 1.0
"""The value of a token that is not in the counts."""


def utterance_counts(utterances: Iterable[str]) -> Counter[str]:
    """In how many utterances each token occurs. An utterance counts once."""
    counts: Counter[str] = Counter()
    for utterance in utterances:
        counts.update(set(tokens(utterance)))
    return counts


def nidf_table(counts: Mapping[str, int]) -> dict[str, float]:
    """The value of each token: (ln max - ln count) / (ln max - ln min), in [0, 1].

    If all counts are equal, every token has 0. Raises `ValueError` if the counts are empty or
    contain a number below 1.
    """
    if not counts or min(counts.values()) < 1:
        raise ValueError("counts of tokens are needed, each at least 1")
    highest, lowest = (math.log(pick(counts.values())) for pick in (max, min))
    span = highest - lowest
    return {
        token: (highest - math.log(count)) / span if span else 0.0
        for token, count in counts.items()
    }


def nidf(text: str, table: Mapping[str, float]) -> float | None:
    """Mean over the *set* of tokens of `text`, in [0, 1]; None for a text without a token."""
    values = [table.get(token, UNKNOWN) for token in set(tokens(text))]
    return math.fsum(values) / len(values) if values else None


def read_counts(path: Path) -> Counter[str]:
    """Counts from a table (token, tab, count) or from dialogues (JSONL, `utterances`); .gz too."""
    counts: Counter[str] = Counter()
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    if lines and lines[0].lstrip().startswith("{"):
        return utterance_counts(_utterances(path, lines))
    for number, line in enumerate(lines, start=1):
        token, _, count = line.rpartition("\t")
        if not token or not count.isdigit() or int(count) < 1:
            raise DataError(f"{path}, line {number}: a token, a tab and a count were expected.")
        counts[token] = int(count)
    if not counts:
        raise DataError(f"{path} holds no counts and no dialogues.")
    return counts


def write_counts(counts: Mapping[str, int], path: Path) -> None:
    """Write the table that `read_counts` reads: gzipped, most frequent first, reproducible."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = "".join(f"{token}\t{count}\n" for token, count in rows)
    path.write_bytes(gzip.compress(text.encode("utf8"), mtime=0))


def _utterances(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            record: dict[str, Any] = parse_json(line)
            yield from (str(turn["content"]) for turn in record["utterances"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}: an object with 'utterances' was expected."
            ) from None
